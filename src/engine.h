/*-------------------------------------------------------------------------
 * engine.h
 *		libcurl in a backend: its handles, sockets, timer and signals.
 *
 * For drive.c and batch.c alone, which decide what is sent and when.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_ENGINE_H
#define SGT_ENGINE_H

#include "postgres.h"

#include "attempt.h"

/* These may raise. */
extern bool sgt_open_engine(uint64 trust_number);
extern bool sgt_wait_for_engine(int64 *wake_us);

/* These raise nothing. */
extern Attempt *sgt_take_attempt(void *owner);
extern void sgt_release_attempt(Attempt *a);
extern void sgt_tidy_engine(void);
extern bool sgt_drop_idle_connections(void);

/* These enclose a turn. */
extern void sgt_begin_turn(void);
extern void sgt_end_turn(void);

/* These enter libcurl: they raise nothing, and are for turns. */
extern bool sgt_start_attempt(Attempt *a, const AttemptOptions *options);
extern void sgt_stop_attempt(Attempt *a, AttemptEnd end);
extern bool sgt_perform(bool sockets_ready, int n_pending);
extern Attempt *sgt_next_ended(void);

#endif							/* SGT_ENGINE_H */
