/*-------------------------------------------------------------------------
 * breaker.h
 *		Whether an API works, judged by how requests to it have ended.
 *
 * For guard.c, which shares breakers between sessions, and for the files that
 * show users their state.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_BREAKER_H
#define SGT_BREAKER_H

#include "postgres.h"

/* What made the breaker open, or keeps it open. */
typedef enum BreakerCause
{
	CAUSE_SILENCE,
	CAUSE_NO_CONNECTION,
	CAUSE_BROKEN,
	CAUSE_TIMED_OUT,
	CAUSE_STATUS
} BreakerCause;

/* One API's; all zero when new.  Times are those of clock.h. */
typedef struct Breaker
{
	/* how long answers take, smoothed as RFC 6298 does for TCP */
	int64		srtt_us;
	int64		rttvar_us;
	bool		knows_tokens;	/* a token's time has gone into these */
	int64		last_answer_us;
	int64		last_good_us;	/* the last that cleared the points */

	int			points;			/* of failures since the last good answer */
	bool		is_open;		/* requests are suspended */
	bool		by_limit;		/* it was opened by 429s */
	BreakerCause cause;			/* of the last failure */
	int			status;			/* with CAUSE_STATUS */
	int64		opened_us;
	int64		suspect_us;		/* when it last opened for a reason that may
								 * lie with connections that were made before */
	int64		leased_us;		/* when the last probe went */
	int64		probe_us;		/* when the next probe may go */
	int64		delay_us;		/* how much later than others the last one
								 * went */
	int64		turn_us;		/* when those may go who need not wait so long */
	int64		early_us;		/* when one of them last went that early */
	int			n_short_probes; /* since the last long one */
	bool		had_long_probe; /* since it opened */
	int64		most_time_us;	/* the longest time limit of those who came
								 * since the last long probe */
	int64		long_until_us;	/* until then there is no other; 0: it ended */

	int			spent_retries;	/* in tenths; see breaker.c */
} Breaker;

/* Its state, for the files that show it. */
typedef struct BreakerState
{
	bool		is_open;
	bool		by_limit;
	BreakerCause cause;
	int			status;
	int64		probe_in_us;	/* negative: it is overdue */
} BreakerState;

/* These raise nothing. */
extern int64 sgt_silence_us(const Breaker *b);
extern int64 sgt_patience_us(const Breaker *b);
extern bool sgt_is_slow(const Breaker *b);
extern bool sgt_note_good_answer(Breaker *b, bool is_token,
								 int64 started_us, int64 took_us, int64 now);
extern bool sgt_note_failure(Breaker *b, BreakerCause cause, int status,
							 int n, int64 now);
extern void sgt_delay_probe(Breaker *b, int64 retry_after_s, int64 now);
extern void sgt_note_limit(Breaker *b, int64 limit_us);
extern bool sgt_may_probe(const Breaker *b, int64 delay_us, int64 now);
extern bool sgt_lease_probe(Breaker *b, int64 delay_us, bool has_written,
							int64 limit_us, int64 now);
extern void sgt_prolong_probe(Breaker *b, int64 timeout_us, int64 now);
extern void sgt_end_probe(Breaker *b, int64 locked_since_us,
						  int64 long_until_us, int64 now);
extern bool sgt_spend_retry(Breaker *b);
extern void sgt_get_breaker_state(const Breaker *b, int64 now,
								  BreakerState *state);

/* Allocates in the current memory context. */
extern char *sgt_describe_cause(const BreakerState *state);

#endif							/* SGT_BREAKER_H */
