/*-------------------------------------------------------------------------
 * timer.h
 *		Points in time at which something has to be done, the earliest first.
 *
 * For drive.c and batch.c, whose requests have one each.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_TIMER_H
#define SGT_TIMER_H

#include "postgres.h"

#include "lib/pairingheap.h"

/* Embedded in the struct that it is for; all zero at first. */
typedef struct Timer
{
	pairingheap_node node;
	int64		wake_us;		/* 0: it is not set */
} Timer;

/* The struct that a timer is embedded in. */
#define timer_container(type, member, timer) \
	((type *) ((char *) (timer) - offsetof(type, member)))

/* These raise nothing. */
extern void sgt_set_timer(Timer *timer, int64 wake_us);
extern void sgt_stop_timer(Timer *timer);
extern Timer *sgt_get_first_timer(void);

#endif							/* SGT_TIMER_H */
