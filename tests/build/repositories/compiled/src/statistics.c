#include "statistics.h"

#include <math.h>

void statistics_start(Statistics *statistics) {
  statistics->count = 0;
  statistics->min = INFINITY;
  statistics->max = -INFINITY;
  statistics->mean = 0;
  statistics->deviation = 0; /* until the end: the sum of squares of the distances from the mean (Welford) */
}

void statistics_add(Statistics *statistics, double number) {
  double before = number - statistics->mean;
  statistics->count++;
  statistics->mean += before / (double)statistics->count;
  statistics->deviation += before * (number - statistics->mean);
  if (number < statistics->min) statistics->min = number;
  if (number > statistics->max) statistics->max = number;
}

void statistics_finish(Statistics *statistics) {
  if (statistics->count > 0) statistics->deviation = sqrt(statistics->deviation / (double)statistics->count);
}
