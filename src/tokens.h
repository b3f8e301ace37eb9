/*-------------------------------------------------------------------------
 * tokens.h
 *		Guest tokens: from checked arguments to the API's answer.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_TOKENS_H
#define SGT_TOKENS_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/array.h"

#include "batch.h"
#include "codec.h"
#include "error.h"
#include "target.h"

/* The arguments of one request; NULL pointers are SQL's NULL. */
typedef struct GuestTokenArgs
{
	bool		is_null;		/* the request itself is NULL */
	ArrayType  *addresses;		/* uuid[] */
	bool		has_expire_at;
	int64		expire_at;
	text	   *region;
	text	   *ch;
	const Interval *expires_in;
} GuestTokenArgs;

/*
 * Gives the next request's arguments, or returns false if there is none.
 * Called in a memory context that is reset from one request to the next.
 */
typedef bool (*GuestTokenSource) (void *arg, GuestTokenArgs *args);

/* Takes a result: either pair or error is NULL.  Called likewise. */
typedef void (*GuestTokenSink) (void *arg, int ordinality,
								const TokenPair *pair,
								const CallError *error);

/*
 * The Unix time of a moment.  A fraction of a second is cut off, so that no
 * token outlives the moment asked for.
 */
static inline int64
sgt_unix_time(TimestampTz moment)
{
	int64		seconds = moment / USECS_PER_SEC;

	if (moment % USECS_PER_SEC < 0)
		seconds--;
	return seconds + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) *
		SECS_PER_DAY;
}

extern void sgt_create_guest_token(const GuestTokenArgs *args,
								   TokenPair *pair);
extern bool sgt_try_create_guest_token(const GuestTokenArgs *args,
									   TokenPair *pair, CallError *error);
extern void sgt_create_guest_tokens(GuestTokenSource source,
									GuestTokenSink sink, void *arg);
extern bool sgt_probe_api(Target *target, AttemptProbe *probe,
						  CallError *error);
extern void sgt_refresh_guest_token(const text *refresh_token,
									TokenPair *pair);

#endif							/* SGT_TOKENS_H */
