/*-------------------------------------------------------------------------
 * codec.h
 *		JSON bodies out, JSON bodies in.
 *
 * Everything here is plain C: all text is UTF-8, nothing raises, and what is
 * handed back was obtained from the caller's allocator.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_CODEC_H
#define SGT_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text.h"

/* The API takes at most ten addresses. */
#define SGT_MAX_ADDRESSES	10

/* A UUID in its canonical form, with the terminator. */
#define SGT_UUID_TEXT_SIZE	37

/* Real tokens have 600 to 900 characters. */
#define SGT_MAX_TOKEN_LENGTH	(64 * 1024)

/*
 * Where results are put.  The allocator returns NULL when memory is short: it
 * must not raise, because the codec holds json-c's objects meanwhile.
 */
typedef void *(*CodecAlloc) (size_t size);

typedef enum CodecStatus
{
	CODEC_OK,
	CODEC_NO_MEMORY,
	CODEC_MALFORMED,
	CODEC_TOO_DEEP				/* nested beyond what any answer needs */
} CodecStatus;

/* The body of POST /api/fabric/guests/tokens; an absent member is left out. */
typedef struct GuestTokenBody
{
	int			n_addresses;
	char		addresses[SGT_MAX_ADDRESSES][SGT_UUID_TEXT_SIZE];
	bool		has_expire_at;
	int64_t		expire_at;		/* Unix time */
	const char *region;			/* NULL: absent */
	const char *ch;				/* NULL: absent */
} GuestTokenBody;

/* What a 201 brings. */
typedef struct TokenPair
{
	char	   *token;
	char	   *refresh_token;
} TokenPair;

/* What a 422 brings, already fit to be shown. */
typedef struct ApiErrors
{
	char	   *message;		/* the first entry's */
	char	   *details;		/* one line an entry */
	char	   *url;			/* the first entry's, or NULL */
} ApiErrors;

extern char *sgt_write_guest_token_body(const GuestTokenBody *request,
										CodecAlloc alloc);
extern char *sgt_write_refresh_body(const char *refresh_token,
									CodecAlloc alloc);

extern CodecStatus sgt_read_token_pair(const char *body, size_t length,
									   CodecAlloc alloc, TokenPair *pair,
									   const char **problem);
extern CodecStatus sgt_read_api_errors(const char *body, size_t length,
									   const SecretList *secrets,
									   CodecAlloc alloc, ApiErrors *errors);

extern CodecStatus sgt_check_json_object(const char *str, size_t length);

#endif							/* SGT_CODEC_H */
