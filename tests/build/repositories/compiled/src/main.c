/* The process that the platform starts: a request is a line on stdin, its answer goes to /tmp/algoout. */
#define _POSIX_C_SOURCE 200809L

#include <stdio.h>
#include <stdlib.h>

#include "json.h"
#include "statistics.h"

static void answer_error(FILE *out, const char *message) {
  fprintf(out, "{\"error\":{\"message\":\"%s\",\"stacktrace\":\"\",\"error_type\":\"InputError\"}}\n", message);
}

static const char *read_numbers(const char *data, Statistics *statistics) {
  char *end;
  statistics_start(statistics);
  data = json_start(data + 1);
  while (*data != ']') {
    double number = strtod(data, &end);
    if (end == data) return "the list holds something that is not a number";
    statistics_add(statistics, number);
    data = json_start(end);
    if (*data == ',') data = json_start(data + 1);
    else if (*data != ']') return "the list has no end";
  }
  statistics_finish(statistics);
  return statistics->count == 0 ? "the list is empty" : NULL;
}

static void answer(FILE *out, const char *request) {
  const char *type = json_get(request, "content_type"), *data = json_get(request, "data"), *wrong;
  Statistics statistics;
  if (type == NULL || data == NULL || !json_is(type, "json") || *data != '[') {
    answer_error(out, "send a list of numbers");
    return;
  }
  wrong = read_numbers(data, &statistics);
  if (wrong != NULL) {
    answer_error(out, wrong);
    return;
  }
  fprintf(out,
          "{\"result\":{\"count\":%ld,\"min\":%.17g,\"max\":%.17g,\"mean\":%.17g,\"deviation\":%.17g},"
          "\"metadata\":{\"content_type\":\"json\"}}\n",
          statistics.count, statistics.min, statistics.max, statistics.mean, statistics.deviation);
}

int main(void) {
  char *line = NULL;
  size_t size = 0;
  printf("PIPE_INIT_COMPLETE\n");
  fflush(stdout);
  while (getline(&line, &size, stdin) > 0) {
    FILE *out = fopen("/tmp/algoout", "w");
    if (out == NULL) {
      perror("/tmp/algoout");
      return 1;
    }
    answer(out, line);
    fclose(out);
  }
  free(line);
  return 0;
}
