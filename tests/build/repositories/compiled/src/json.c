#include "json.h"

#include <stdlib.h>
#include <string.h>

const char *json_start(const char *text) {
  while (*text == ' ' || *text == '\t' || *text == '\n' || *text == '\r') text++;
  return text;
}

static const char *string_end(const char *text) {
  for (text++; *text != '"'; text++) {
    if (*text == '\\') text++;
    if (*text == '\0') return NULL;
  }
  return text + 1;
}

/* Of an object or a list. Brackets are counted, not matched: whoever sent the request wrote them in pairs. */
static const char *nested_end(const char *text) {
  int depth = 0;
  while (*text != '\0') {
    if (*text == '"') {
      text = string_end(text);
      if (text == NULL) return NULL;
      continue;
    }
    if (*text == '{' || *text == '[') depth++;
    if (*text == '}' || *text == ']') depth--;
    text++;
    if (depth == 0) return text;
  }
  return NULL;
}

const char *json_end(const char *text) {
  char *end;
  text = json_start(text);
  if (*text == '"') return string_end(text);
  if (*text == '{' || *text == '[') return nested_end(text);
  if (strncmp(text, "true", 4) == 0 || strncmp(text, "null", 4) == 0) return text + 4;
  if (strncmp(text, "false", 5) == 0) return text + 5;
  strtod(text, &end);
  return end == text ? NULL : end;
}

int json_is(const char *text, const char *string) {
  size_t length = strlen(string);
  return *text == '"' && strncmp(text + 1, string, length) == 0 && text[1 + length] == '"';
}

const char *json_get(const char *text, const char *key) {
  text = json_start(text);
  if (*text != '{') return NULL;
  text = json_start(text + 1);
  while (*text == '"') {
    const char *name = text;
    text = string_end(text);
    if (text == NULL) return NULL;
    text = json_start(text);
    if (*text != ':') return NULL;
    text = json_start(text + 1);
    if (json_is(name, key)) return text;
    text = json_end(text);
    if (text == NULL) return NULL;
    text = json_start(text);
    if (*text != ',') return NULL;
    text = json_start(text + 1);
  }
  return NULL;
}
