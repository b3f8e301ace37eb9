/*-------------------------------------------------------------------------
 * messages.h
 *		Messages in the language of lc_messages.
 *
 * For every file that has messages.  Included after PostgreSQL's own headers,
 * it makes ereport() and _() look into our catalog, whose sources are in po/.
 * A text that is not translated on the spot is marked with gettext_noop(), and
 * goes through _() later.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_MESSAGES_H
#define SGT_MESSAGES_H

#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"

#define SGT_CATALOG		PG_TEXTDOMAIN("sw_guest_token")

/*
 * The catalog's name.  _PG_init() is too early to bind it: in the postmaster,
 * the encoding that messages must have is not known yet.
 */
static inline const char *
sgt_text_domain(void)
{
	static int	encoding = -1;
	int			saved_errno = errno;	/* for the caller's %m */

	if (encoding != GetDatabaseEncoding())
	{
		encoding = GetDatabaseEncoding();
		pg_bindtextdomain(SGT_CATALOG);
		errno = saved_errno;
	}
	return SGT_CATALOG;
}

#undef TEXTDOMAIN
#define TEXTDOMAIN		sgt_text_domain()

#undef _
#define _(message)		dgettext(TEXTDOMAIN, message)

#endif							/* SGT_MESSAGES_H */
