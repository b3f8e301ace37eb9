/*-------------------------------------------------------------------------
 * text.c
 *		UTF-8, escapes, and text from outside that is fit to be shown.
 *
 * Plain C; nothing raises, nothing allocates.
 *-------------------------------------------------------------------------
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

/* Takes the place of a secret. */
#define BLANK				"***"

/* This many letters and digits of a secret in a row give it away. */
#define PIECE_LENGTH		8

/* An issued token is no shorter than its header. */
#define MIN_TOKEN			24

/*
 * A text reduced to what stays the same however it is quoted: its letters and
 * digits, in lower case, and its bytes beyond ASCII.  Each remembers where in
 * the text it came from.
 *
 * Every PIECE_LENGTH of them in a row form a piece, which a number holds.  The
 * pieces are sorted, so one is found in a dozen steps, and the length of the
 * secret bounds the time that a search takes.  Comparing all with all could
 * take seconds if one party chose both the secret and the text (a refresh
 * token, and the server that gets it), and nothing here can be interrupted.
 */
typedef struct Essence
{
	int			n;
	unsigned char bytes[SGT_MAX_SEEN];
	short		starts[SGT_MAX_SEEN];
	short		ends[SGT_MAX_SEEN];

	int			n_pieces;
	uint64_t	pieces[SGT_MAX_SEEN];	/* sorted, each once */
	bool		is_secret[SGT_MAX_SEEN];	/* of the piece at the same place */
} Essence;

static void mark_secrets(const char *str, size_t length,
						 const SecretList *secrets, bool *hidden);
static void read_essence(const char *str, size_t length, Essence *seen);
static int	compare_pieces(const void *a, const void *b);
static void note_secret(Essence *seen, const char *secret, bool decode,
						bool *hidden);
static int	find_piece(const Essence *seen, uint64_t piece);
static void mark_pieces(const Essence *seen, bool *hidden);
static void mark_short(const Essence *seen, const unsigned char *piece,
					   int n_piece, bool *hidden);
static void mark_literal(const char *str, size_t length, const char *secret,
						 bool *hidden);
static void mark_tokens(const char *str, size_t length, bool *hidden);
static size_t take_essence(const char *str, size_t length, bool decode,
						   unsigned char *bytes, int *n);
static size_t decode_unit(const char *str, size_t length, long *character);
static long read_number(const char *str, size_t length, int base);
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
	bool		hidden[SGT_MAX_SEEN] = {false};
	char	   *out = dst;
	int			n_chars = 0;
	size_t		pos = 0;

	if (length > SGT_MAX_SEEN)
		length = SGT_MAX_SEEN;
	mark_secrets(str, length, secrets, hidden);

	while (pos < length && n_chars < SGT_MAX_SHOWN)
	{
		bool		printable = false;
		size_t		n = 1;

		if (hidden[pos])
		{
			for (const char *b = BLANK; *b && n_chars < SGT_MAX_SHOWN; b++)
			{
				*out++ = *b;
				n_chars++;
			}
			while (pos + n < length && hidden[pos + n])
				n++;
		}
		else if (sgt_is_space(str[pos]))
		{
			/* markup comes with line ends and indentation: one space will do */
			if (out > dst && out[-1] != ' ')
			{
				*out++ = ' ';
				n_chars++;
			}
		}
		else
		{
			n = read_printable((const unsigned char *) str + pos, length - pos,
							   &printable);
			if (printable)
			{
				memcpy(out, str + pos, n);
				out += n;
			}
			else
				*out++ = '?';
			n_chars++;
		}
		pos += n;
	}
	while (out > dst && out[-1] == ' ')
		out--;
	*out = '\0';
	return (size_t) (out - dst);
}

/*
 * Marks the bytes of a text that belong to secrets.
 *
 * A server may send a secret back escaped, in another case, or cut off.  So
 * each of its pieces counts, or all of its essence if that is shorter.
 */
static void
mark_secrets(const char *str, size_t length, const SecretList *secrets,
			 bool *hidden)
{
	Essence		seen;

	read_essence(str, length, &seen);
	for (int i = 0; i < secrets->n; i++)
	{
		/* what looks like an escape in a secret may come back escaped itself */
		note_secret(&seen, secrets->texts[i], true, hidden);
		note_secret(&seen, secrets->texts[i], false, hidden);
		mark_literal(str, length, secrets->texts[i], hidden);
	}
	mark_pieces(&seen, hidden);
	mark_tokens(str, length, hidden);
}

static void
read_essence(const char *str, size_t length, Essence *seen)
{
	size_t		pos = 0;
	uint64_t	piece = 0;
	int			n_pieces = 0;

	seen->n = 0;
	while (pos < length)
	{
		int			n = 0;
		size_t		used = take_essence(str + pos, length - pos, true,
										seen->bytes + seen->n, &n);

		for (int i = seen->n; i < seen->n + n; i++)
		{
			seen->starts[i] = (short) pos;
			seen->ends[i] = (short) (pos + used);
			piece = piece << 8 | seen->bytes[i];
			if (i >= PIECE_LENGTH - 1)
				seen->pieces[n_pieces++] = piece;
		}
		seen->n += n;
		pos += used;
	}

	qsort(seen->pieces, (size_t) n_pieces, sizeof(uint64_t), compare_pieces);
	seen->n_pieces = 0;
	for (int i = 0; i < n_pieces; i++)
	{
		if (i == 0 || seen->pieces[i] != seen->pieces[i - 1])
			seen->pieces[seen->n_pieces++] = seen->pieces[i];
	}
	memset(seen->is_secret, false, (size_t) seen->n_pieces);
}

static int
compare_pieces(const void *a, const void *b)
{
	uint64_t	first = *(const uint64_t *) a;
	uint64_t	second = *(const uint64_t *) b;

	return (first > second) - (first < second);
}

/*
 * Notes which pieces of the text are the secret's, or marks it at once if it
 * is shorter than a piece.
 */
static void
note_secret(Essence *seen, const char *secret, bool decode, bool *hidden)
{
	size_t		length = strlen(secret);
	size_t		pos = 0;
	size_t		n_read = 0;
	uint64_t	piece = 0;
	unsigned char bytes[PIECE_LENGTH];

	while (pos < length)
	{
		unsigned char unit[4];
		int			n = 0;

		pos += take_essence(secret + pos, length - pos, decode, unit, &n);
		for (int i = 0; i < n; i++)
		{
			int			at = -1;

			piece = piece << 8 | unit[i];
			if (n_read < PIECE_LENGTH)
				bytes[n_read] = unit[i];
			if (++n_read >= PIECE_LENGTH)
				at = find_piece(seen, piece);
			if (at >= 0)
				seen->is_secret[at] = true;
		}
	}
	if (n_read < PIECE_LENGTH)
		mark_short(seen, bytes, (int) n_read, hidden);
}

/*
 * The place of a piece, or -1.
 */
static int
find_piece(const Essence *seen, uint64_t piece)
{
	const uint64_t *found = bsearch(&piece, seen->pieces,
									(size_t) seen->n_pieces,
									sizeof(uint64_t), compare_pieces);

	return found ? (int) (found - seen->pieces) : -1;
}

static void
mark_pieces(const Essence *seen, bool *hidden)
{
	uint64_t	piece = 0;

	for (int i = 0; i < seen->n; i++)
	{
		piece = piece << 8 | seen->bytes[i];
		if (i >= PIECE_LENGTH - 1 &&
			seen->is_secret[find_piece(seen, piece)])
		{
			int			start = seen->starts[i - (PIECE_LENGTH - 1)];

			memset(hidden + start, true, (size_t) (seen->ends[i] - start));
		}
	}
}

static void
mark_short(const Essence *seen, const unsigned char *piece, int n_piece,
		   bool *hidden)
{
	for (int i = 0; n_piece > 0 && i + n_piece <= seen->n; i++)
	{
		if (memcmp(seen->bytes + i, piece, (size_t) n_piece) == 0)
		{
			int			start = seen->starts[i];
			int			end = seen->ends[i + n_piece - 1];

			memset(hidden + start, true, (size_t) (end - start));
		}
	}
}

/*
 * Looks for a secret as it is, because it may have neither letters nor digits.
 */
static void
mark_literal(const char *str, size_t length, const char *secret, bool *hidden)
{
	size_t		n = strlen(secret);

	for (size_t pos = 0; n > 0 && pos + n <= length; pos++)
	{
		if (memcmp(str + pos, secret, n) == 0)
			memset(hidden + pos, true, n);
	}
}

/*
 * Tokens that were issued to others are in no list.  But a JWE begins with the
 * base64url form of a brace, and is long.
 */
static void
mark_tokens(const char *str, size_t length, bool *hidden)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz"
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
	static const char start[] = {'e', 'y'};
	size_t		pos = 0;

	while (pos < length)
	{
		size_t		end = pos;
		size_t		n = 0;

		while (end < length)
		{
			long		c;
			size_t		used = decode_unit(str + end, length - end, &c);

			if (c <= 0 || c > 0x7F || strchr(alphabet, (int) c) == NULL ||
				(n < sizeof(start) && (c | 0x20) != start[n]))
				break;
			end += used;
			n++;
		}
		if (n >= MIN_TOKEN)
		{
			memset(hidden + pos, true, end - pos);
			pos = end;
		}
		else
			pos++;
	}
}

/*
 * Appends the essence of the next unit of a text, at most four bytes, and
 * returns how much of the text that was.
 */
static size_t
take_essence(const char *str, size_t length, bool decode,
			 unsigned char *bytes, int *n)
{
	long		c = (signed char) str[0];
	size_t		used = decode ? decode_unit(str, length, &c) : 1;

	if (c >= 'A' && c <= 'Z')
		c |= 0x20;
	if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c < 0)
		bytes[(*n)++] = (unsigned char) c;
	else if (c >= 0x80 && c < 0x800)
	{
		bytes[(*n)++] = (unsigned char) (0xC0 | c >> 6);
		bytes[(*n)++] = (unsigned char) (0x80 | (c & 0x3F));
	}
	else if (c >= 0x800 && c < 0x10000)
	{
		bytes[(*n)++] = (unsigned char) (0xE0 | c >> 12);
		bytes[(*n)++] = (unsigned char) (0x80 | (c >> 6 & 0x3F));
		bytes[(*n)++] = (unsigned char) (0x80 | (c & 0x3F));
	}
	return used;
}

/*
 * Reads one character, which JSON, a URL or HTML may have escaped, JSON within
 * JSON several times over.  Returns how long it is; the character is 0 if it
 * is of no interest, and negative if it is only a byte of UTF-8.
 */
static size_t
decode_unit(const char *str, size_t length, long *character)
{
	size_t		n = 0;
	long		value = -1;

	*character = (signed char) str[0];
	if (str[0] == '\\')
	{
		*character = 0;
		while (n < length && str[n] == '\\')
			n++;
		if (n + 5 <= length && str[n] == 'u')
			value = read_number(str + n + 1, 4, 16);
		if (value >= 0)
		{
			*character = value;
			return n + 5;
		}
		if (n < length && str[n] != '\0' && strchr("bfnrt", str[n]))
			return n + 1;
		return n;
	}
	if (str[0] == '%')
	{
		/* %25 is a percent sign that is itself escaped */
		n = 1;
		while (n + 2 <= length && memcmp(str + n, "25", 2) == 0)
			n += 2;
		value = n + 2 <= length ? read_number(str + n, 2, 16) : -1;
		*character = value < 0 ? 0 : (signed char) value;
		return value < 0 ? n : n + 2;
	}
	if (str[0] == '&' && length >= 4 && str[1] == '#')
	{
		const char *end = memchr(str, ';', length < 10 ? length : 10);
		bool		is_hex = (str[2] | 0x20) == 'x';

		n = is_hex ? 3 : 2;
		if (end && (size_t) (end - str) > n)
			value = read_number(str + n, (size_t) (end - str) - n,
								is_hex ? 16 : 10);
		if (value >= 0)
		{
			*character = value;
			return (size_t) (end - str) + 1;
		}
	}
	return 1;
}

/* The number that "length" digits make, or -1. */
static long
read_number(const char *str, size_t length, int base)
{
	static const char digits[] = "0123456789abcdef";
	long		value = 0;

	for (size_t i = 0; i < length; i++)
	{
		char		c = str[i] >= 'A' && str[i] <= 'F' ? str[i] | 0x20 : str[i];
		const char *digit = c ? strchr(digits, c) : NULL;

		if (!digit || digit - digits >= base)
			return -1;
		value = value * base + (digit - digits);
	}
	return value;
}

/*
 * The length of the character at the start of a text, or of a byte that is not
 * part of one, and whether it prints: control characters do not, nor do those
 * that have no width, break lines or turn the direction of writing.  They are
 * Unicode's categories Cc, Zl and Zp, and what it calls default ignorable.
 */
static size_t
read_printable(const unsigned char *str, size_t length, bool *printable)
{
	static const struct
	{
		long		first;
		long		last;
	}			unfit[] = {
		{0x00, 0x1F}, {0x7F, 0x9F}, {0xAD, 0xAD}, {0x34F, 0x34F},
		{0x61C, 0x61C}, {0x115F, 0x1160}, {0x17B4, 0x17B5},
		{0x180B, 0x180F}, {0x200B, 0x200F}, {0x2028, 0x202E},
		{0x2060, 0x206F}, {0x3164, 0x3164}, {0xFE00, 0xFE0F},
		{0xFEFF, 0xFEFF}, {0xFFA0, 0xFFA0}, {0xFFF0, 0xFFFB},
		{0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0xE0000, 0xE0FFF}
	};
	size_t		n = sgt_utf8_length(str, length);
	long		c = str[0];

	*printable = n > 0;
	if (n == 0)
		return 1;
	if (n > 1)
		c &= 0x7F >> n;
	for (size_t i = 1; i < n; i++)
		c = c << 6 | (str[i] & 0x3F);
	for (size_t i = 0; i < sizeof(unfit) / sizeof(unfit[0]); i++)
	{
		if (c >= unfit[i].first && c <= unfit[i].last)
			*printable = false;
	}
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
	return end - pos < 4 ? -1 : (int) read_number(pos, 4, 16);
}
