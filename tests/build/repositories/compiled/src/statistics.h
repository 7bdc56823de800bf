#ifndef STATISTICS_H
#define STATISTICS_H

typedef struct {
  long count;
  double min, max, mean, deviation;
} Statistics;

void statistics_start(Statistics *statistics);
void statistics_add(Statistics *statistics, double number);
void statistics_finish(Statistics *statistics);

#endif
