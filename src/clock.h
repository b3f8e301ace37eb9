/*-------------------------------------------------------------------------
 * clock.h
 *		The time that deadlines and pauses are measured in.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_CLOCK_H
#define SGT_CLOCK_H

#include "postgres.h"

#include "portability/instr_time.h"

/* A moment that never comes. */
#define NEVER				PG_INT64_MAX

/* Microseconds since some moment in the past; never goes backwards. */
static inline int64
sgt_now_us(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return (int64) INSTR_TIME_GET_MICROSEC(now);
}

#endif							/* SGT_CLOCK_H */
