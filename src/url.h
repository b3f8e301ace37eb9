/*-------------------------------------------------------------------------
 * url.h
 *		The URLs of the API and of proxies, judged before they are used.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_URL_H
#define SGT_URL_H

#include "postgres.h"

/* Where requests go. */
typedef struct ApiUrl
{
	const char *url;			/* without a slash at its end */
	bool		is_https;
} ApiUrl;

/* A proxy; NULL pointers stand for what its URL lacks. */
typedef struct ProxyUrl
{
	const char *url;
	const char *user;			/* decoded */
	const char *password;		/* decoded */
	const char *written_password;	/* as it stands in the URL */
} ProxyUrl;

/*
 * These fill in the result, in the current memory context, and return NULL,
 * or else what is wrong in a sentence that quotes nothing.
 */
extern const char *sgt_read_space_name(const char *str, ApiUrl *result);
extern const char *sgt_read_base_url(const char *str, ApiUrl *result);
extern const char *sgt_read_proxy(const char *str, bool is_https,
								  ProxyUrl *result);

extern const char *sgt_find_environment_proxy(void);
extern const char *sgt_find_proxy_password(const char *url, const char **end);
extern bool sgt_has_unfit_character(const char *str);

#endif							/* SGT_URL_H */
