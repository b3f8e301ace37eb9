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

/* Calls that are made together. */
typedef struct TokenStream TokenStream;

typedef struct StreamCounts
{
	int64		requests;		/* calls that were made */
	int			most_in_flight; /* at once */
	int64		abandoned;		/* whose result nobody has taken */
	int64		retries;		/* attempts after the first */
} StreamCounts;

/*
 * Takes the result of a call: either pair or error is NULL.  Called in a memory
 * context that is reset from one result to the next.
 */
typedef void (*TokenSink) (void *arg, int tag, const TokenPair *pair,
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
extern bool sgt_is_raised(const CallError *error, bool is_try);
extern TokenStream *sgt_begin_stream(MemoryContext parent, TokenSink sink,
									 void *arg);
extern void sgt_submit_call(TokenStream *stream, const GuestTokenArgs *args,
							int tag);
extern bool sgt_has_place(const TokenStream *stream);
extern bool sgt_has_result(const TokenStream *stream);
extern bool sgt_take_result(TokenStream *stream);
extern void sgt_renew_stream(TokenStream *stream);
extern void sgt_rest_stream(TokenStream *stream);
extern void sgt_leave_stream(TokenStream *stream);
extern void sgt_end_calls(TokenStream *stream);
extern const StreamCounts *sgt_get_stream_counts(const TokenStream *stream);
extern bool sgt_examine_api(Target *target, AttemptExam *exam,
							CallError *error);
extern void sgt_refresh_guest_token(const text *refresh_token,
									TokenPair *pair);

#endif							/* SGT_TOKENS_H */
