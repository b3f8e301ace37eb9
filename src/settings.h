/*-------------------------------------------------------------------------
 * settings.h
 *		The sw_guest_token.* settings, and the credentials.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_SETTINGS_H
#define SGT_SETTINGS_H

#include "postgres.h"

#include "codec.h"
#include "http.h"

/*
 * What a call needs to know.  Strings live until a setting changes, which
 * cannot be in the middle of a call.
 */
typedef struct Settings
{
	HttpConfig	http;
	const char *base_url;		/* without a slash at its end */
	SecretList	secrets;		/* the API token, the proxy's password, ... */
} Settings;

/* What an ereport() needs, or a row of a batch. */
typedef struct CallError
{
	int			sqlstate;
	char	   *message;
	char	   *detail;			/* NULL: none */
	char	   *hint;			/* NULL: none */
} CallError;

/* What sgt_check_settings() judges. */
typedef enum SettingsPart
{
	SETTINGS_TARGET,			/* where requests go, and how */
	SETTINGS_CREDENTIALS		/* the API token, or its file */
} SettingsPart;

extern void sgt_define_settings(void);
extern bool sgt_is_preloaded(void);
extern const Settings *sgt_load_settings(void);
extern const Settings *sgt_check_settings(SettingsPart part, CallError *error);

#endif							/* SGT_SETTINGS_H */
