/* SPDX-License-Identifier: MIT */
/* Pages have one writer each. Who writes more than a word pins before, or writes again what went in between. */

#include "page-check.h"

#define PAGE ((size_t)4096)
#define WORDS (PAGE / sizeof(uint64_t))

bool is_away(int error) {
    return error == -ENOTCONN || error == -ENOENT || error == -ECONNREFUSED || error == -EPROTO || error == -ETIMEDOUT;
}

static uint64_t load(const uint64_t *words, size_t i) {
    return __atomic_load_n(&words[i], __ATOMIC_RELAXED);
}

/* How many words, from the first on, are the value. The rest is zeros. */
static size_t whole_words(const uint64_t *words, uint64_t value) {
    size_t i = 0, n;

    while (i < WORDS && load(words, i) == value)
        i++;
    for (n = i; i < WORDS; i++)
        child_check(load(words, i) == 0);
    return n;
}

bool page_holds(const void *page, uint64_t value) {
    size_t n = whole_words(page, value);

    if (n == WORDS)
        return true;
    if (n > 0)
        child_check(whole_words(page, value) == 0); /* dropped while it was looked at */
    return false;
}

bool page_fill(void *page, uint64_t value) {
    uint64_t *words = page;
    size_t n = 0;

    for (size_t i = 0; i < WORDS; i++)
        __atomic_store_n(&words[i], value, __ATOMIC_RELAXED);
    for (size_t i = 0; i < WORDS; i++) {
        uint64_t word = load(words, i);

        child_check(word == value || word == 0);
        n += word == value;
    }
    return n == WORDS;
}

void chunk_pin_once(struct drp_region *region, size_t chunk, struct chunk_note *note, uint64_t value) {
    char *at = (char *)drp_region_address(region) + chunk * PAGE_CHECK_CHUNK;
    uint64_t generation, began = now_ns();
    int r = drp_pin(region, chunk * PAGE_CHECK_CHUNK, PAGE_CHECK_CHUNK, &generation);

    errno = -r;
    child_check(r == 0);
    child_check(now_ns() - began < PAGE_CHECK_HANG_NS);
    for (size_t page = 0; note->known && page < PAGE_CHECK_CHUNK; page += PAGE)
        child_check(page_holds(at + page, note->value) || generation != note->generation);
    for (size_t page = 0; page < PAGE_CHECK_CHUNK; page += PAGE)
        page_fill(at + page, value);
    for (size_t page = 0; page < PAGE_CHECK_CHUNK; page += PAGE)
        child_check(page_holds(at + page, value)); /* nothing is taken of what is pinned */
    *note = (struct chunk_note){.generation = generation, .value = value, .known = true};
    child_check(drp_unpin(region, chunk * PAGE_CHECK_CHUNK, PAGE_CHECK_CHUNK) == 0);
}
