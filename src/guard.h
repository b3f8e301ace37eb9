/*-------------------------------------------------------------------------
 * guard.h
 *		What all sessions share about the API, and what they count.
 *
 * For drive.c, which asks before it sends and tells how that ended, retry.c,
 * batch.c, which counts calls, and the files that show the state.  Without
 * preloading there is no guard.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_GUARD_H
#define SGT_GUARD_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "attempt.h"
#include "breaker.h"
#include "target.h"

#define SGT_MAX_GUARDED		16

/* What is shown of a target's URL. */
#define SGT_GUARDED_URL_SIZE	256

/* Times of up to 1 ms, 2 ms, 4 ms ... 65,536 ms, and longer ones. */
#define SGT_N_LATENCIES		18

/* A target, as the sessions share it; NULL: one that is not guarded. */
typedef struct Guarded Guarded;

/* What the guard keeps with a request, and below with its attempt. */
typedef struct GuardWatch
{
	bool		is_probe;		/* it goes while the others are refused */
	int64		suspect_us;		/* it must not use connections made before */

	int64		long_until_us;	/* of a long probe: until when it is the only
								 * one; 0: it is none */
	int64		locked_since_us;	/* of a probe whose transaction has
									 * written: when it began; 0: it is none */
	bool		is_late;		/* it has waited for sgt_silence_us() */
	int64		silent_since_us;	/* start of the silence that it counted */
	int			n_silences;		/* how often it did so */
} GuardWatch;

/* How a call for a token ended, for the statistics. */
typedef enum CallEnd
{
	CALL_ISSUED,
	CALL_REJECTED,				/* 4xx but 429 */
	CALL_LIMITED,				/* 429 */
	CALL_FAILED,
	CALL_TIMED_OUT,
	CALL_CANCELLED,
	CALL_SUSPENDED,
	CALL_CROWDED,
	CALL_OVER_BUDGET,
	N_CALL_ENDS
} CallEnd;

typedef struct GuardCounters
{
	int64		ends[N_CALL_ENDS];	/* calls, by how they ended */
	int64		requests;		/* on the wire */
	int64		retries;
	int64		retries_denied;
	int64		opened;
	int64		total_us;		/* of calls let through and not cancelled */
	int64		latencies[SGT_N_LATENCIES]; /* those calls, by their time */
	int			last_error;		/* SQLSTATE; 0: none */
	TimestampTz last_opened;	/* 0: never */
	TimestampTz reset;
} GuardCounters;

/* What is shown of a target. */
typedef struct GuardSnapshot
{
	char		url[SGT_GUARDED_URL_SIZE];
	BreakerState state;
	int			sessions;
	bool		is_crowded;		/* no more may come inside */
	GuardCounters counters;
} GuardSnapshot;

extern void sgt_install_guard(void);

/* These may raise. */
extern Guarded *sgt_find_guarded(const Target *target);
extern void sgt_report_guard(void);

/* These raise nothing. */
extern bool sgt_enter_guard(Guarded *g, const Limits *limits, bool comes_back);
extern void sgt_leave_guard(Guarded *g);
extern bool sgt_ask_guard(Guarded *g, const Limits *limits, bool is_turned_away,
						  int64 now, GuardWatch *watch, AttemptEnd *refusal,
						  BreakerState *state);
extern bool sgt_may_go_on(Guarded *g, const Limits *limits,
						  const GuardWatch *watch, bool is_retry, int64 now,
						  BreakerState *state);
extern bool sgt_may_retry(Guarded *g, const Limits *limits, const Attempt *a);
extern void sgt_tell_guard(Guarded *g, const Limits *limits, const Attempt *a,
						   AttemptEnd result, bool is_retry);
extern int64 sgt_add_silence(Guarded *g, int64 now);
extern bool sgt_look_at_guard(Guarded *g, const Limits *limits,
							  const Attempt *a, GuardWatch *watch, int64 now,
							  int64 *look_us);
extern void sgt_end_watch(Guarded *g, GuardWatch *watch);

extern void sgt_count_call(Guarded *g, AttemptEnd result, int status,
						   int sqlstate, int64 time_us);
extern Guarded *sgt_get_guarded(int n);
extern void sgt_take_snapshot(const Guarded *g, const Limits *limits,
							  GuardSnapshot *snapshot);
extern void sgt_reset_counters(void);

#endif							/* SGT_GUARD_H */
