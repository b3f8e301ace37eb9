/*-------------------------------------------------------------------------
 * settings.h
 *		The sw_guest_token.* settings, and the credentials.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_SETTINGS_H
#define SGT_SETTINGS_H

#include "postgres.h"

#include "error.h"
#include "target.h"

/* What sgt_check_target() judges. */
typedef enum SettingsPart
{
	SETTINGS_TARGET,			/* where requests go, and how */
	SETTINGS_CREDENTIALS		/* the API token, or its file */
} SettingsPart;

extern void sgt_define_settings(void);
extern bool sgt_is_preloaded(void);
extern Target *sgt_load_target(void);
extern Target *sgt_check_target(SettingsPart part, CallError *error);
extern bool sgt_reads_ahead(void);
extern const Limits *sgt_get_limits(void);

#endif							/* SGT_SETTINGS_H */
