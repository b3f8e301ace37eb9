/*-------------------------------------------------------------------------
 * text.h
 *		UTF-8, escapes, and text from outside that is fit to be shown.
 *-------------------------------------------------------------------------
 */
#ifndef SGT_TEXT_H
#define SGT_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* How much of a text from outside is shown, in characters. */
#define SGT_MAX_SHOWN		200

/* Room for that: every character may need four bytes. */
#define SGT_SHOWN_SIZE		(SGT_MAX_SHOWN * 4 + 1)

/*
 * How much of a text is looked at, in bytes: what is shown of it is far less,
 * even if most of it is white space or secrets.
 */
#define SGT_MAX_SEEN		4096

/* The API token, the Basic credentials, those of a proxy, a refresh token. */
#define SGT_MAX_SECRETS		8

/* Texts that must never be shown; servers echo what they are sent. */
typedef struct SecretList
{
	int			n;
	const char *texts[SGT_MAX_SECRETS];
} SecretList;

extern size_t sgt_clean(char *dst, const char *str, size_t length,
						const SecretList *secrets);
extern size_t sgt_utf8_length(const unsigned char *str, size_t length);
extern int	sgt_read_hex4(const char *pos, const char *end);

/* White space as JSON has it */
static inline bool
sgt_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

#endif							/* SGT_TEXT_H */
