/* A reader for as much of JSON as a request needs: it looks things up in the text and copies nothing. */
#ifndef JSON_H
#define JSON_H

#include <stddef.h>

/* The first character after white space. */
const char *json_start(const char *text);
/* The first character after the value that `text` begins with; NULL if that is no JSON value. */
const char *json_end(const char *text);
/* The value of a key of the object that `text` begins with; NULL if it has none. */
const char *json_get(const char *text, const char *key);
/* Whether the string that `text` begins with is this one. */
int json_is(const char *text, const char *string);

#endif
