/* SPDX-License-Identifier: MIT */

/* Texts that others chose: no control character reaches a terminal, no broken character a parser of JSON. */

#include "text.h"

#include <stdint.h>
#include <string.h>

void ctl_clean_text(char *text) {
    for (char *c = text; *c; c++)
        if (*c < 0x20 || *c > 0x7e)
            *c = '?';
}

/* Bytes of the character that begins here, 0 if none does: no overlong form, no surrogate, nothing beyond U+10FFFF. */
static size_t character(const unsigned char *text, size_t size) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t code;
    size_t length;

    if (text[0] < 0x80)
        return 1;
    length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
    if (text[0] < 0xc0 || text[0] >= 0xf8 || length > size)
        return 0;
    code = text[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    return code < least[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ? 0 : length;
}

void ctl_make_utf8(const char *text, size_t size, char *ret) {
    for (size_t i = 0; i < size;) {
        size_t length = character((const unsigned char *)text + i, size - i);

        if (length > 0) {
            memcpy(ret, text + i, length);
            ret += length;
            i += length;
        } else {
            memcpy(ret, "\xef\xbf\xbd", 3);
            ret += 3;
            i++;
        }
    }
    *ret = '\0';
}
