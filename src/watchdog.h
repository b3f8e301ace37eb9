/*-------------------------------------------------------------------------
 * watchdog.h
 *		Blocks signals while libcurl is on the stack, and ends calls that hang.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_WATCHDOG_H
#define SGT_WATCHDOG_H

extern void sgt_block_signals(void);
extern void sgt_restore_signals(void);
extern void sgt_start_watchdog(void (*bite) (void));
extern void sgt_stop_watchdog(void);
extern void sgt_begin_watched_call(void);
extern void sgt_end_watched_call(void);

#endif							/* SGT_WATCHDOG_H */
