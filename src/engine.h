/*-------------------------------------------------------------------------
 * engine.h
 *		libcurl in a backend: its handles, sockets, timer and signals.
 *
 * For http.c and transfer.c alone; http.c decides what is sent and when.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_ENGINE_H
#define SGT_ENGINE_H

#include "postgres.h"

#include <curl/curl.h>

#include "http.h"
#include "transfer.h"

#define NEVER				PG_INT64_MAX

/* These may raise. */
extern bool sgt_engine_open(const HttpConfig *config);
extern bool sgt_engine_wait(int64 wake_us);
extern void sgt_engine_check(void);

/* These raise nothing. */
extern void sgt_engine_tidy(void);
extern void sgt_engine_discard(void);
extern int64 sgt_now_us(void);

/* These enter libcurl: they raise nothing, and are for turns. */
extern void sgt_engine_begin_turn(void);
extern void sgt_engine_end_turn(void);
extern bool sgt_engine_adopt(Transfer *t);
extern bool sgt_engine_start(Transfer *t, const HttpConfig *config,
							 bool wait_for_others);
extern void sgt_engine_stop(Transfer *t);
extern bool sgt_engine_perform(bool sockets_ready, int max_connections);
extern Transfer *sgt_engine_next_done(CURLcode *code);
extern bool sgt_engine_drop_idle(void);

#endif							/* SGT_ENGINE_H */
