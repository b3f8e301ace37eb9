/*-------------------------------------------------------------------------
 * watchdog.h
 *		Ends calls that do not return.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_WATCHDOG_H
#define SGT_WATCHDOG_H

/* Let through where all other signals are blocked; a thread must not get it. */
#define WATCHDOG_SIGNAL		SIGVTALRM

extern void sgt_start_watchdog(void (*bite) (void));
extern void sgt_stop_watchdog(void);
extern void sgt_begin_watched_call(void);
extern void sgt_end_watched_call(void);

#endif							/* SGT_WATCHDOG_H */
