/* SPDX-License-Identifier: MIT */
#ifndef DROPPABLE_TESTS_TREE_H
#define DROPPABLE_TESTS_TREE_H

/* A small tree of files, which stands for /proc and /sys/fs/cgroup. Unexpected failures fail the test. */

/* Makes base (a template of mkdtemp(3)) and returns it. */
const char *tree_make(char *base);
/* Writes the text into <base>/<name>, whose folders are made if need be. What is open keeps being the same file. */
void tree_write(const char *base, const char *name, const char *text);
/* Removes <base>/<name> and what is below it. "": all of it. */
void tree_remove(const char *base, const char *name);

/* The text of any file, up to a MiB of it, valid until the next call. */
char *tree_text(const char *path);

#endif
