/*-------------------------------------------------------------------------
 * timer.c
 *		Points in time at which something has to be done, the earliest first.
 *
 * It does not know what that is, and wakes nobody: whoever waits has to look.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "timer.h"

static int	compare_timers(const pairingheap_node *a,
						   const pairingheap_node *b, void *arg);

static pairingheap timers = {compare_timers, NULL, NULL};

/* The heap has the greatest on top: make that the earliest. */
static int
compare_timers(const pairingheap_node *a, const pairingheap_node *b, void *arg)
{
	int64		first = pairingheap_const_container(Timer, node, a)->wake_us;
	int64		second = pairingheap_const_container(Timer, node, b)->wake_us;

	(void) arg;
	return (first < second) - (first > second);
}

/*
 * Sets a timer, even one that is set already.
 */
void
sgt_set_timer(Timer *timer, int64 wake_us)
{
	sgt_stop_timer(timer);
	timer->wake_us = wake_us;
	pairingheap_add(&timers, &timer->node);
}

/*
 * To be called before its memory is freed.
 */
void
sgt_stop_timer(Timer *timer)
{
	if (timer->wake_us != 0)
		pairingheap_remove(&timers, &timer->node);
	timer->wake_us = 0;
}

/*
 * The one to look at first; NULL if none is set.
 */
Timer	   *
sgt_get_first_timer(void)
{
	return pairingheap_is_empty(&timers) ? NULL :
		pairingheap_container(Timer, node, pairingheap_first(&timers));
}
