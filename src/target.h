/*-------------------------------------------------------------------------
 * target.h
 *		Where requests go, with which credentials, and what bounds them.
 *
 * A target never changes: when a setting, the token's file or the certificate
 * authorities do, settings.c makes another one.  Whoever still uses the old
 * one has pinned it.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_TARGET_H
#define SGT_TARGET_H

#include "postgres.h"

#include "utils/memutils.h"

#include "text.h"

typedef struct Target
{
	MemoryContext context;		/* holds all of it */
	int			n_pins;			/* the last one frees it */

	const char *base_url;		/* without a slash at its end */
	bool		is_https;		/* else plain HTTP, to a loopback host */
	const char *authorization;	/* the header's value; NULL: none is sent */
	const char *ca_file;		/* NULL: as libcurl finds it */
	uint64		trust_number;	/* differs if ca_file has changed */
	const char *proxy;			/* NULL: none, whatever the environment says */
	bool		obeys_no_proxy; /* the environment's variable of that name */
	SecretList	secrets;		/* what no message may show */
	uint64		key[2];			/* by which sessions recognize it */
} Target;

/* What bounds the requests to it; times in milliseconds. */
typedef struct Limits
{
	int			connect_timeout_ms; /* one connection attempt */
	int			timeout_ms;		/* one request, with its retries */
	int			max_retries;	/* attempts after the first */
	int			max_concurrency;	/* requests in flight */
	bool		breaker;		/* the guard may suspend them */
	int			max_sessions;	/* that wait for a slow API; 0: any number */
	int			tokens_per_minute;	/* for the role; 0: any number */
} Limits;

static inline Target *
sgt_pin_target(Target *target)
{
	target->n_pins++;
	return target;
}

/* Raises nothing; NULL is no target. */
static inline void
sgt_unpin_target(Target *target)
{
	if (target && --target->n_pins == 0)
		MemoryContextDelete(target->context);
}

#endif							/* SGT_TARGET_H */
