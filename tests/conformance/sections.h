/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_CONFORMANCE_SECTIONS_H
#define DROPPABLE_CONFORMANCE_SECTIONS_H

/* All sections, each in a file of its name. */

#include "say.h"

extern const struct section section_map;
extern const struct section section_place;
extern const struct section section_advice;
extern const struct section section_lock;
extern const struct section section_protect;
extern const struct section section_resident;
extern const struct section section_unmap;
extern const struct section section_remap;
extern const struct section section_size;
extern const struct section section_fork;
extern const struct section section_thread;
extern const struct section section_calls;
extern const struct section section_others;
extern const struct section section_smaps;
extern const struct section section_core;
extern const struct section section_misc;
extern const struct section section_confine;

#endif
