/*-------------------------------------------------------------------------
 * text.c
 *		UTF-8, escapes, and text from outside that is fit to be shown.
 *
 * Plain C; nothing raises, nothing allocates.
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "text.h"

/* Takes the place of a secret. */
#define BLANK				"***"

/*
 * A secret that the end of the text cuts off is recognised by this many of
 * its characters.
 */
#define MIN_SECRET_PREFIX	4

static size_t match_secrets(const char *str, size_t length,
							const SecretList *secrets);
static size_t match_secret(const char *str, size_t length,
						   const char *secret);
static size_t match_issued_token(const char *str, size_t length);
static size_t decode_unit(const char *str, size_t length, bool escaped,
						  char *byte);
static size_t read_printable(const unsigned char *str, size_t length,
							 bool *printable);

/*
 * Makes a text from outside fit for a message: at most SGT_MAX_SHOWN
 * printable characters and a terminator go to "dst", which has SGT_SHOWN_SIZE
 * bytes.  Returns the number of bytes without the terminator.  The text need
 * not be valid UTF-8; the result is.
 *
 * Secrets are blanked before the text is cut to size, so that no part of one
 * is left over.
 */
size_t
sgt_clean(char *dst, const char *str, size_t length, const SecretList *secrets)
{
	char	   *out = dst;
	int			n_chars = 0;

	while (length > 0 && n_chars < SGT_MAX_SHOWN)
	{
		bool		printable = false;
		size_t		n = match_secrets(str, length, secrets);

		if (n > 0)
		{
			for (const char *b = BLANK; *b && n_chars < SGT_MAX_SHOWN; b++)
			{
				*out++ = *b;
				n_chars++;
			}
		}
		else if (sgt_is_space(*str))
		{
			/* markup comes with line ends and indentation: one space will do */
			n = 1;
			if (out > dst && out[-1] != ' ')
			{
				*out++ = ' ';
				n_chars++;
			}
		}
		else
		{
			n = read_printable((const unsigned char *) str, length,
							   &printable);
			if (printable)
			{
				memcpy(out, str, n);
				out += n;
			}
			else
				*out++ = '?';
			n_chars++;
		}
		str += n;

		length -= n;
	}
	while (out > dst && out[-1] == ' ')
		out--;
	*out = '\0';
	return (size_t) (out - dst);
}

/*
 * The length of the secret at the start of a text, 0 if there is none.
 */
static size_t
match_secrets(const char *str, size_t length, const SecretList *secrets)
{
	size_t		longest = match_issued_token(str, length);

	for (int i = 0; i < secrets->n; i++)
	{
		size_t		n = match_secret(str, length, secrets->texts[i]);

		if (n > longest)
			longest = n;
	}
	return longest;
}

/*
 * Compares by meaning: a server may send back an escaped form, JSON within
 * JSON even, where backslashes multiply.
 */
static size_t
match_secret(const char *str, size_t length, const char *secret)
{
	size_t		pos = 0;
	size_t		matched = 0;

	while (pos < length && secret[matched])
	{
		size_t		n_wanted = strspn(secret + matched, "\\");
		size_t		n_found = 0;
		char		byte;

		while (pos + n_found < length && str[pos + n_found] == '\\')
			n_found++;
		if (n_wanted > 0)
		{
			if (n_found == 0)
				return 0;
			matched += n_wanted;
			pos += n_found;
			continue;
		}
		pos += n_found;
		pos += decode_unit(str + pos, length - pos, n_found > 0, &byte);
		if (byte != secret[matched])
			return 0;
		matched++;
	}
	if (matched < MIN_SECRET_PREFIX && secret[matched])
		return 0;
	return pos < length ? pos : length;
}

/*
 * A JWE begins with the base64url form of '{"', and its parts are joined by
 * dots.  Tokens that somebody else was issued are not in the list of secrets,
 * but they look like this.
 */
static size_t
match_issued_token(const char *str, size_t length)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz"
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	size_t		n = 3;
	bool		has_dot = false;

	if (length < n || memcmp(str, "eyJ", n) != 0)
		return 0;
	while (n < length && str[n] != '\0' &&
		   (str[n] == '.' || strchr(alphabet, str[n])))
	{
		has_dot |= str[n] == '.';

		n++;
	}

	/* at the end of the text the dots may have been cut off */
	return has_dot || n == length ? n : 0;
}

/*
 * Reads one byte of a text in which JSON's and URLs' escapes may stand;
 * "escaped" tells that backslashes came before.
 */
static size_t
decode_unit(const char *str, size_t length, bool escaped, char *byte)
{
	int			value = -1;
	size_t		n = 1;

	if (length == 0)
	{
		*byte = '\\';
		return 0;
	}
	if (escaped && length >= 5 && str[0] == 'u')
	{
		value = sgt_read_hex4(str + 1, str + 5);
		n = 5;
	}
	else if (str[0] == '%')
	{
		/* %25 is the percent sign itself */
		while (length >= n + 4 && memcmp(str + n, "25", 2) == 0)
			n += 2;
		if (length >= n + 2)
		{
			const char	digits[4] = {'0', '0', str[n], str[n + 1]};

			value = sgt_read_hex4(digits, digits + 4);
			n += 2;
		}
	}

	if (value < 0 || value > 0xFF)
	{
		*byte = str[0];
		return 1;
	}
	*byte = (char) value;
	return n;
}

/*
 * The length of the character at the start of a text, or of the byte that is
 * none, and whether it prints: control characters do not, nor do those that
 * break lines or turn the direction of writing.
 */
static size_t
read_printable(const unsigned char *str, size_t length, bool *printable)
{
	size_t		n = sgt_utf8_length(str, length);

	*printable = n > 0;
	if (n == 0)
		return 1;
	if (n == 1)
		*printable = str[0] >= 0x20 && str[0] != 0x7F;

	else if (n == 2 && str[0] == 0xC2)
		*printable = str[1] >= 0xA0;	/* U+0080 to U+009F */

	else if (n == 3 && str[0] == 0xE2 && str[1] == 0x80)
		*printable = str[2] < 0xA8 || str[2] > 0xAE;	/* U+2028 to U+202E */

	else if (n == 3 && str[0] == 0xE2 && str[1] == 0x81)
		*printable = str[2] < 0xA6 || str[2] > 0xA9;	/* U+2066 to U+2069 */

	return n;
}

/*
 * The length of the UTF-8 character at the start of a text, or 0 if there is
 * none, by the rules of PostgreSQL: no overlong form, no surrogate, nothing
 * beyond U+10FFFF.  A NUL byte counts as a character.
 */
size_t
sgt_utf8_length(const unsigned char *str, size_t length)
{
	unsigned char low = 0x80;
	unsigned char high = 0xBF;
	size_t		n;

	if (length == 0)
		return 0;
	if (str[0] < 0x80)
		return 1;
	if (str[0] >= 0xC2 && str[0] <= 0xDF)
		n = 2;
	else if (str[0] >= 0xE0 && str[0] <= 0xEF)
		n = 3;
	else if (str[0] >= 0xF0 && str[0] <= 0xF4)
		n = 4;
	else
		return 0;
	if (length < n)
		return 0;

	/* the first byte narrows the range of the second */
	switch (str[0])
	{
		case 0xE0:
			low = 0xA0;
			break;
		case 0xED:
			high = 0x9F;
			break;
		case 0xF0:
			low = 0x90;
			break;
		case 0xF4:
			high = 0x8F;
			break;
		default:
			break;
	}
	if (str[1] < low || str[1] > high)
		return 0;
	for (size_t i = 2; i < n; i++)
	{
		if (str[i] < 0x80 || str[i] > 0xBF)
			return 0;
	}
	return n;
}

/* Four hexadecimal digits, or -1. */
int
sgt_read_hex4(const char *pos, const char *end)
{
	int			value = 0;

	if (end - pos < 4)
		return -1;
	for (int i = 0; i < 4; i++)
	{
		static const char digits[] = "0123456789abcdef";
		char		c = pos[i] >= 'A' && pos[i] <= 'F' ? pos[i] | 0x20 : pos[i];
		const char *digit = c ? strchr(digits, c) : NULL;

		if (!digit)
			return -1;
		value = value * 16 + (int) (digit - digits);
	}
	return value;
}
