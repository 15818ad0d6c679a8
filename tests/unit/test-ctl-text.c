/* SPDX-License-Identifier: MIT */
/* What droppablectl shows of texts that others chose. */

#include "suite.h"
#include "text.h"

#include <check.h>
#include <string.h>

#define NO "\xef\xbf\xbd"

static const struct {
    const char *text, *utf8, *clean;
} rows[] = {
    {"", "", ""},
    {"/a/b c%", "/a/b c%", "/a/b c%"},
    {"\x1b[2J\t\x7f", "\x1b[2J\t\x7f", "?[2J??"}, /* JSON escapes these itself */
    {"\xc3\xa9", "\xc3\xa9", "??"},
    {"\xe2\x82\xac\xf0\x9f\x98\x80", "\xe2\x82\xac\xf0\x9f\x98\x80", "???????"},
    {"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf", "??????????"},
    {"\xff\xfe", NO NO, "??"},
    {"\x80"
     "a",
     NO "a", "?a"},
    {"a\xc3", "a" NO, "a?"},    /* cut */
    {"\xa9/a", NO "/a", "?/a"}, /* cut at its front */
    {"\xc3(", NO "(", "?("},
    {"\xe2\x82", NO NO, "??"},
    {"\xc0\xaf", NO NO, "??"}, /* overlong */
    {"\xe0\x80\xaf", NO NO NO, "???"},
    {"\xf0\x80\x80\xaf", NO NO NO NO, "????"},
    {"\xed\xa0\x80", NO NO NO, "???"}, /* a surrogate */
    {"\xf4\x90\x80\x80", NO NO NO NO, "????"},
    {"\xf8\x88\x80\x80\x80", NO NO NO NO NO, "?????"},
};

START_TEST(test_text) {
    char found[64];

    ctl_make_utf8(rows[_i].text, strlen(rows[_i].text), found);
    ck_assert_str_eq(found, rows[_i].utf8);
    strcpy(found, rows[_i].text);
    ctl_clean_text(found);
    ck_assert_str_eq(found, rows[_i].clean);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("ctl-text");
    TCase *text = tcase_create("text");

    tcase_add_loop_test(text, test_text, 0, sizeof(rows) / sizeof(rows[0]));
    suite_add_tcase(suite, text);
    return suite_run(suite);
}
