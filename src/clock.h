/*-------------------------------------------------------------------------
 * clock.h
 *		The time that deadlines and pauses are measured in.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_CLOCK_H
#define SGT_CLOCK_H

#include "postgres.h"

#include <time.h>

#include "datatype/timestamp.h"

/* A moment that never comes. */
#define NEVER				PG_INT64_MAX

/*
 * Microseconds since some moment in the past; never goes backwards.  Sessions
 * share such times, so instr_time would not do: from PostgreSQL 19 on, each
 * session may choose another clock for it.
 */
static inline int64
sgt_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

#endif							/* SGT_CLOCK_H */
