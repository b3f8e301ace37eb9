/*-------------------------------------------------------------------------
 * retry.c
 *		Whether a request whose attempt has failed gets another one, and when.
 *
 * It follows what the API's documentation and HTTP say, and what the guard
 * still allows.  It knows nothing of queues and timers.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"

#include "clock.h"
#include "retry.h"

/* Backoff: full jitter, from 0 to a bound that doubles from MIN to MAX. */
#define MIN_BACKOFF_US		(100 * 1000)
#define MAX_BACKOFF_US		(2000 * 1000)

/*
 * If the server asks for a longer pause, there is no retry: whoever waits
 * holds a session, a transaction and its locks.
 */
#define MAX_RETRY_AFTER_S	2

/*
 * How often a request that an HTTP/2 server refuses is sent again, in all its
 * attempts together, beyond what libcurl does by itself.
 */
#define MAX_REFUSALS		5

static bool is_retryable(AttemptEnd result, int status);
static int64 back_off(int n);

/*
 * When to send a request again because not even a byte came back, or because
 * nobody knows whether it was answered, without counting that as an attempt.
 */
int64
sgt_time_to_repeat(Retry *retry, const Attempt *a, int64 deadline_us)
{
	int64		resume_us = a->ended_us;

	if (a->end != ATTEMPT_BROKEN ||
		(a->header_length > 0 && !a->is_mixed_up))
		return NEVER;
	if (a->is_mixed_up && !retry->was_mixed_up)
		retry->was_mixed_up = retry->is_fresh = true;
	else if (a->ends_refused)
	{
		resume_us += back_off(retry->n_refusals);
		if (retry->n_refusals >= MAX_REFUSALS || resume_us >= deadline_us)
			return NEVER;
		retry->n_refusals++;
	}
	else
	{
		/* the server may have closed a kept-alive connection meanwhile */
		if ((a->is_new && !a->is_refused) || a->n_replaced > 0 ||
			a->ends_reset || retry->is_fresh)
			return NEVER;
		retry->is_fresh = true;
	}
	return resume_us;
}

/*
 * When to make another attempt: after a pause as long as the server says, or
 * else a random one.
 */
int64
sgt_time_to_retry(Retry *retry, const Attempt *a, AttemptEnd result,
				  int n_attempts, int64 deadline_us, const Limits *limits,
				  Guarded *guarded)
{
	int64		resume_us = a->ended_us;

	retry->is_fresh = false;
	retry->is_repeat = false;

	/* nobody gave libcurl the time to connect */
	if (result == ATTEMPT_CONNECT_TIMED_OUT && a->is_starved)
		return resume_us < deadline_us ? resume_us : NEVER;
	if (!is_retryable(result, a->status) || n_attempts > limits->max_retries)
		return NEVER;

	if (result == ATTEMPT_ANSWERED && a->retry_after_s > 0)
	{
		if (a->retry_after_s > MAX_RETRY_AFTER_S)
			return NEVER;
		resume_us += a->retry_after_s * USECS_PER_SEC;
	}
	else
		resume_us += back_off(n_attempts - 1);
	if (resume_us >= deadline_us || !sgt_may_retry(guarded, limits, a))
		return NEVER;
	return resume_us;
}

static bool
is_retryable(AttemptEnd result, int status)
{
	if (result == ATTEMPT_ANSWERED)
		return status == 429 || status == 500 ||
			(status >= 502 && status <= 504);
	return result == ATTEMPT_NOT_CONNECTED ||
		result == ATTEMPT_CONNECT_TIMED_OUT ||
		result == ATTEMPT_BROKEN || result == ATTEMPT_NO_DESCRIPTOR;
}

/*
 * The n-th pause, counted from 0: a random time, so that many clients that
 * failed together do not come back together.
 */
static int64
back_off(int n)
{
	int64		max_us = Min((int64) MIN_BACKOFF_US << Min(n, 16),
							 MAX_BACKOFF_US);

	return (int64) (pg_prng_double(&pg_global_prng_state) * max_us);
}
