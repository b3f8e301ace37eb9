/*-------------------------------------------------------------------------
 * breaker.c
 *		Whether an API works, judged by how requests to it have ended.
 *
 * Failures score points, and a good answer clears them.  At MAX_POINTS the
 * breaker opens: requests are suspended, except for one probe at a time.  A
 * good answer to a request that was sent after that closes it.
 *
 * This is arithmetic on one struct, no matter who shares it.  guard.c holds a
 * spinlock while it calls these functions, so they must not raise, wait or
 * loop.
 *
 * Nobody owns an open breaker.  A probe is a lease: whoever comes first after
 * the deadline, of those whose turn it is (probers.c), moves the deadline on,
 * and if that session is never heard of again, the next one sends another
 * probe.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "datatype/timestamp.h"

#include "breaker.h"
#include "messages.h"

/* Shorter times count neither as silence nor as slow. */
#define MIN_SILENCE_US		USECS_PER_SEC
#define SLOW_US				USECS_PER_SEC

#define MAX_POINTS			10
#define POINTS_OF_FAILURE	2
#define POINTS_OF_429		1

/* It opens for a random time, so that not all servers come back together. */
#define MIN_OPEN_US			(750 * 1000)
#define MAX_OPEN_US			(1250 * 1000)
#define MAX_RETRY_AFTER_S	60
#define MAX_JITTER_US		(250 * 1000)

/*
 * A long probe may wait for its whole timeout, so that an API that has become
 * slower is still found to work.  A transaction that has written may hold
 * locks for that long, so others go first, if there are any.
 *
 * There is one long probe at a time.  Another may begin when that has ended, or
 * when its timeout or a minute is over; then it gives up, too, so that sessions
 * with a long timeout do not pile up.
 */
#define PROBES_PER_LONG		8
#define PROBES_PER_LOCKING	(8 * PROBES_PER_LONG)
#define MAX_LONG_PROBE_US	(60 * USECS_PER_SEC)

/*
 * How long after a probe the next is due.  Those who go first need not wait for
 * the end of another's lease, but only one of them does not in MIN_EARLY_US.
 */
#define LEASE_US			USECS_PER_SEC
#define MIN_EARLY_US		(2500 * 1000)

/* The retry budget, a retry's cost, and what a token gives back, in tenths. */
#define RETRY_BUDGET		100
#define COST_OF_RETRY		10
#define GAIN_OF_TOKEN		1

static void measure(Breaker *b, int64 took_us);

/*
 * An answer ordinarily does not take longer than this.
 */
int64
sgt_silence_us(const Breaker *b)
{
	return Max(MIN_SILENCE_US, b->srtt_us + 4 * b->rttvar_us);
}

/*
 * A request with a shorter time limit does not give the API a chance.  How much
 * the times vary does not count: if it did, after a phase of slow and uneven
 * answers no time limit might be long enough.
 */
int64
sgt_patience_us(const Breaker *b)
{
	return Max(MIN_SILENCE_US, b->srtt_us);
}

/*
 * Whether answers ordinarily take so long that calls tie up their sessions.
 */
bool
sgt_is_slow(const Breaker *b)
{
	return b->srtt_us > SLOW_US;
}

/*
 * Notes an answer that shows that the API works, to a request that was
 * started at "started_us".  "took_us" is 0 if nobody knows how long it took.
 * Returns true if this closes the breaker.
 *
 * Requests that were started before the breaker opened do not close it: their
 * answers may have been on their way already.
 */
bool
sgt_note_good_answer(Breaker *b, bool is_token, int64 started_us,
					 int64 took_us, int64 now)
{
	bool		closes = b->is_open && started_us >= b->opened_us;

	/*
	 * a refusal's time says little about a token's: it counts until there is
	 * one
	 */
	if (took_us > 0 && is_token && !b->knows_tokens)
	{
		b->srtt_us = 0;
		b->knows_tokens = true;
	}
	if (took_us > 0 && (is_token || b->srtt_us == 0))
		measure(b, took_us);
	b->points = 0;
	b->last_good_us = Max(b->last_good_us, now);
	if (closes)
	{
		b->is_open = false;
		b->spent_retries = 0;
		/* what was typical before the outage may no longer be */
		b->srtt_us = Max(b->srtt_us, took_us);
	}
	if (is_token)
		b->spent_retries = Max(b->spent_retries - GAIN_OF_TOKEN, 0);
	return closes;
}

static void
measure(Breaker *b, int64 took_us)
{
	int64		error_us = took_us - b->srtt_us;

	if (b->srtt_us == 0)
	{
		b->srtt_us = took_us;
		b->rttvar_us = took_us / 2;
	}
	else
	{
		b->rttvar_us += (Max(error_us, -error_us) - b->rttvar_us) / 4;
		b->srtt_us += error_us / 8;
	}
}

/*
 * Notes a failure, or n of the same kind.  Returns true if this opens the
 * breaker.
 */
bool
sgt_note_failure(Breaker *b, BreakerCause cause, int status, int n, int64 now)
{
	bool		is_limit = cause == CAUSE_STATUS && status == 429;

	b->cause = cause;
	b->status = status;
	if (b->is_open)
		return false;
	b->points += n * (is_limit ? POINTS_OF_429 : POINTS_OF_FAILURE);
	if (b->points < MAX_POINTS)
		return false;

	b->is_open = true;
	b->by_limit = is_limit;
	b->opened_us = now;
	if (cause != CAUSE_STATUS)
		b->suspect_us = now;
	b->probe_us = now + pg_prng_uint64_range(&pg_global_prng_state,
											 MIN_OPEN_US, MAX_OPEN_US);
	b->delay_us = 0;
	b->n_short_probes = 0;
	b->had_long_probe = false;
	b->most_time_us = 0;
	return true;
}

/*
 * Puts off the next probe for as long as a 429 asked for, unless another has
 * asked for longer.
 */
void
sgt_delay_probe(Breaker *b, int64 retry_after_s, int64 now)
{
	int64		probe_us = now + Min(retry_after_s, MAX_RETRY_AFTER_S) * USECS_PER_SEC +
	pg_prng_uint64_range(&pg_global_prng_state, 0, MAX_JITTER_US);

	b->probe_us = Max(b->probe_us, probe_us);
	b->turn_us = Max(b->turn_us, probe_us);
}

/*
 * Notes how much time somebody has who would probe.
 */
void
sgt_note_limit(Breaker *b, int64 limit_us)
{
	b->most_time_us = Max(b->most_time_us, limit_us);
}

/*
 * Whether somebody may probe who lets others go first for "delay_us".  They do
 * not wait for the end of a lease of somebody for whom that is longer.
 */
bool
sgt_may_probe(const Breaker *b, int64 delay_us, int64 now)
{
	if (delay_us < b->delay_us && now - b->early_us >= MIN_EARLY_US)
		return now >= b->turn_us;
	return now >= b->probe_us + delay_us;
}

/*
 * Takes the probe that is due: the next one is due a second later, no matter
 * how this one ends.
 *
 * Returns true if it may be a long one.  That needs a time limit that is longer
 * than a short probe's.  Once a long one has failed, the next is for whoever has
 * the most time, unless they do not come for as long again.
 */
bool
sgt_lease_probe(Breaker *b, int64 delay_us, bool has_written,
				int64 limit_us, int64 now)
{
	int			n_short = has_written ? PROBES_PER_LOCKING : PROBES_PER_LONG;

	if (now < b->probe_us)
		b->early_us = now;
	b->leased_us = now;
	b->probe_us = now + LEASE_US;
	b->delay_us = delay_us;
	b->turn_us = now;
	b->n_short_probes++;
	if (b->had_long_probe && limit_us < b->most_time_us)
		n_short += PROBES_PER_LONG;
	return b->n_short_probes >= n_short && now >= b->long_until_us &&
		limit_us > sgt_silence_us(b);
}

/*
 * Makes the probe that has just been leased a long one: it may wait for its
 * whole timeout.
 */
void
sgt_prolong_probe(Breaker *b, int64 timeout_us, int64 now)
{
	b->n_short_probes = 0;
	b->had_long_probe = true;
	b->most_time_us = 0;
	b->long_until_us = now + Min(timeout_us, MAX_LONG_PROBE_US);
}

/*
 * To be called when a probe is no longer running.  If it held locks, since
 * "locked_since_us", the next one waits for as long as this one took, a second
 * at most, so that those who wait for the locks get their turn.  If it was a
 * long one, which had until "long_until_us", another may follow.  Either may
 * be 0.
 */
void
sgt_end_probe(Breaker *b, int64 locked_since_us, int64 long_until_us,
			  int64 now)
{
	if (locked_since_us != 0)
	{
		int64		probe_us = now + Min(LEASE_US, now - locked_since_us);

		b->probe_us = Max(b->probe_us, probe_us);
		b->turn_us = Max(b->turn_us, probe_us);
	}
	if (b->long_until_us == long_until_us)
		b->long_until_us = 0;
}

/*
 * Spends a retry; false if none is left, or if the breaker is open.
 */
bool
sgt_spend_retry(Breaker *b)
{
	if (b->is_open || b->spent_retries + COST_OF_RETRY > RETRY_BUDGET)
		return false;
	b->spent_retries += COST_OF_RETRY;
	return true;
}

/*
 * What is shown
 */

void
sgt_get_breaker_state(const Breaker *b, int64 now, BreakerState *state)
{
	state->is_open = b->is_open;
	state->by_limit = b->by_limit;
	state->cause = b->cause;
	state->status = b->status;
	state->probe_in_us = b->probe_us - now;
}

/*
 * The last thing that went wrong, as a sentence.
 */
char	   *
sgt_describe_cause(const BreakerState *state)
{
	switch (state->cause)
	{
		case CAUSE_SILENCE:
			return pstrdup(_("No answer came."));
		case CAUSE_NO_CONNECTION:
			return pstrdup(_("The last request could not connect."));
		case CAUSE_BROKEN:
			return pstrdup(_("The last connection broke."));
		case CAUSE_TIMED_OUT:
			return pstrdup(_("The last request timed out."));
		case CAUSE_STATUS:
			break;
	}
	return psprintf(_("The last status was %d."), state->status);
}
