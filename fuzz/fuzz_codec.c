/*-------------------------------------------------------------------------
 * fuzz_codec.c
 *		A libFuzzer target: what the codec makes of hostile responses.
 *
 * script/fuzz builds and runs it.  An input is a text file, so that the ones
 * in corpus/ can be read and written with an editor:
 *
 * 1st byte		what is called: "t" sgt_read_token_pair(), "e"
 *				sgt_read_api_errors(), "o" sgt_check_json_object(), "c"
 *				sgt_clean(); any other byte is one of these, too
 * 2nd byte		which allocation fails: "1" to "9" the codec's first to ninth,
 *				":" and up the first and further of json-c's, which is heeded
 *				only if FUZZ_JSON_C is in the environment; "0": none
 * the rest		the response, in which a byte that UTF-8 does not have, and
 *				the one after it, stand for more: 0xF8 N for N * 257 times
 *				"a", 0xF9 to 0xFF for a secret, N telling how it is escaped
 *
 * It checks, besides what the sanitizers see:
 *
 * 1. Tokens that are believed are printable ASCII of bounded length, and come
 *    from a strictly valid JSON object: judged by a second, independent
 *    parser.  What that one accepts, sgt_check_json_object() accepts.  An
 *    unknown member changes nothing, although the body is then read in
 *    another way.
 * 2. What may be shown is short, valid UTF-8 that prints, and holds no
 *    secret, not even an escaped one.
 * 3. The same call gives the same result.  When an allocation fails, so does
 *    the call, unless its result is the same as with enough memory.
 *-------------------------------------------------------------------------
 */
#include <ctype.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec.h"
#include "text.h"

/* The codec's own limit on nesting. */
#define MAX_DEPTH			64

/* An expanded response is at most this long, give or take one expansion. */
#define MAX_BODY			(256 * 1024)

/* The most results that the codec allocates in three calls. */
#define MAX_RESULTS			12

/*
 * Shorter secrets, and shorter pieces of one, may be a coincidence.  What
 * looks like an escape in front of a piece takes up to five of its
 * characters.
 */
#define MIN_SECRET			4
#define MIN_PIECE			16

#define CHECK(condition) \
	do { if (!(condition)) fail(#condition, __LINE__); } while (0)

typedef struct Buffer
{
	char	   *data;
	size_t		length;
	size_t		size;
} Buffer;

/* What a call returned: a status, and texts, of which some may be absent. */
typedef struct Result
{
	int			status;
	char	   *texts[3];
} Result;

/* Secrets of several kinds; the last is too short to be looked for here. */
static const SecretList secrets = {7, {
	"PT0123456789abcdef0123456789abcdef",
	"MDAwMDAwMDAtMDAwMDpQ/+Mz==",
	"p\"a\\ss/w<o>rd",
	"100%41puregold%",
	"p%40ss%25word",
	"eyJhbGciOiJkaXIifQ..AAAA.BBBB",
	"xyz"
}};

/* Allocations that the codec's caller frees, and which one fails. */
static void *results[MAX_RESULTS];
static int	n_results;
static int	failing_result;

/*
 * json-c's allocations: the linker redirects them to the functions below.
 * When memory is short, json-c itself leaks (at least up to 0.19), and up to
 * 0.17 it crashes and cuts off strings, so findings are likely its own rather
 * than ours.
 */
static bool counting;
static int	n_mallocs;
static int	failing_malloc;

static void
fail(const char *condition, int line)
{
	fprintf(stderr, "fuzz_codec.c:%d: not so: %s\n", line, condition);
	abort();
}

/*
 * Allocators that fail
 */

static bool
is_malloc_due(void)
{
	return counting && ++n_mallocs == failing_malloc;
}

extern void *__real_malloc(size_t size);
extern void *__real_calloc(size_t n, size_t size);
extern void *__real_realloc(void *ptr, size_t size);
extern char *__real_strdup(const char *str);
extern int	__real_vasprintf(char **dst, const char *format, va_list args);

void *
__wrap_malloc(size_t size)
{
	return is_malloc_due() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return is_malloc_due() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *ptr, size_t size)
{
	return is_malloc_due() ? NULL : __real_realloc(ptr, size);
}

char *
__wrap_strdup(const char *str)
{
	return is_malloc_due() ? NULL : __real_strdup(str);
}

int
__wrap_vasprintf(char **dst, const char *format, va_list args)
{
	return is_malloc_due() ? -1 : __real_vasprintf(dst, format, args);
}

/* The codec's. */
static void *
alloc_result(size_t size)
{
	bool		was_counting = counting;
	void	   *result;

	CHECK(n_results < MAX_RESULTS);
	if (n_results + 1 == failing_result)
	{
		failing_result = 0;
		return NULL;
	}
	counting = false;
	result = malloc(size);
	counting = was_counting;
	return results[n_results++] = result;
}

static void
free_results(void)
{
	while (n_results > 0)
		free(results[--n_results]);
}

/*
 * The response that an input stands for
 */

static void
append(Buffer *buffer, const char *str, size_t length)
{
	if (buffer->length + length > buffer->size)
	{
		buffer->size = 2 * (buffer->length + length);
		buffer->data = realloc(buffer->data, buffer->size);
	}
	memcpy(buffer->data + buffer->length, str, length);
	buffer->length += length;
}

/*
 * A secret, as a server may send it back: as it is, or with one of JSON's or
 * a URL's escapes, even twice, or with each of them in turn.
 */
static void
append_secret(Buffer *buffer, const char *secret, uint8_t form)
{
	static const char *const formats[] = {
		"%c", "\\u%04x", "%%%02X", "\\\\u%04X", "%%25%02x", "\\%c", "\\\\\\%c"
	};
	const int	n_formats = sizeof(formats) / sizeof(formats[0]);

	for (const char *p = secret; *p; p++)
	{
		int			i = form % 8;
		bool		is_plain = isalnum((unsigned char) *p);
		char		unit[16];

		if (i == 7)
			i = (form / 8 + (int) (p - secret)) % n_formats;
		/* letters and digits need no escape; JSON has one for all */
		if (is_plain && i != 1 && i != 3)
			i = 0;
		/* a server that escapes the start of an escape does so everywhere */
		if (form % 8 == 7 && (is_plain || *p == '%' || *p == '\\'))
			i = 0;
		append(buffer, unit, (size_t) snprintf(unit, sizeof(unit), formats[i], *p));
	}
}

/*
 * The copy is exactly as long as the response, so that AddressSanitizer sees
 * any read beyond its end.
 */
static char *
expand(const uint8_t *data, size_t size, size_t *length)
{
	Buffer		buffer = {NULL, 0, 0};
	char	   *body;

	for (size_t i = 0; i < size && buffer.length < MAX_BODY; i++)
	{
		if (data[i] < 0xF8 || i + 1 == size)
			append(&buffer, (const char *) data + i, 1);
		else if (data[i++] > 0xF8)
			append_secret(&buffer, secrets.texts[data[i - 1] - 0xF9], data[i]);
		else
		{
			for (int n = data[i] * 257; n > 0; n--)
				append(&buffer, "a", 1);
		}
	}
	body = malloc(buffer.length);
	if (buffer.length > 0)
		memcpy(body, buffer.data, buffer.length);
	*length = buffer.length;
	free(buffer.data);
	return body;
}

/*
 * A second opinion on JSON and UTF-8
 */

static bool has_long_number;

/* Returns the code point and goes past it; -1 if there is none. */
static long
read_code_point(const char **pos, const char *end)
{
	static const long lowest[] = {0, 0x80, 0x800, 0x10000};
	unsigned char c = (unsigned char) *(*pos)++;
	int			n = c < 0x80 ? 0 : c < 0xC0 ? -1 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : c < 0xF8 ? 3 : -1;
	long		value = n > 0 ? c & (0x3F >> n) : c;

	if (n < 0)
		return -1;
	for (int i = 0; i < n; i++)
	{
		if (*pos == end || ((unsigned char) **pos & 0xC0) != 0x80)
			return -1;
		value = value << 6 | (*(*pos)++ & 0x3F);
	}
	if (value < lowest[n] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF))
		return -1;
	return value;
}

static bool read_value(const char **pos, const char *end, int depth);

static void
skip_space(const char **pos, const char *end)
{
	while (*pos < end && memchr(" \t\r\n", **pos, 4))
		(*pos)++;
}

static bool
skip(const char **pos, const char *end, const char *word)
{
	size_t		length = strlen(word);

	if ((size_t) (end - *pos) < length || memcmp(*pos, word, length) != 0)
		return false;
	*pos += length;
	return true;
}

static bool
skip_digits(const char **pos, const char *end)
{
	const char *start = *pos;

	while (*pos < end && **pos >= '0' && **pos <= '9')
		(*pos)++;
	return *pos > start;
}

/* The value of n hexadecimal digits, or -1; stops at a terminator. */
static int
read_hex(const char *str, int n)
{
	int			value = 0;

	for (int i = 0; i < n; i++)
	{
		const char *digits = "0123456789ABCDEFabcdef";
		const char *digit = str[i] ? strchr(digits, str[i]) : NULL;

		if (!digit)
			return -1;
		value = value * 16 + (int) (digit - digits > 15 ? digit - digits - 6 :
									digit - digits);
	}
	return value;
}

/* The value of what follows \u; -1 if there is none. */
static int
read_unit(const char **pos, const char *end)
{
	if (end - *pos < 4)
		return -1;
	*pos += 4;
	return read_hex(*pos - 4, 4);
}

/* A member's name may hold no NUL, because the codec refuses one. */
static bool
read_string(const char **pos, const char *end, bool is_name)
{
	int			unit;

	if (!skip(pos, end, "\""))
		return false;
	for (;;)
	{
		if (*pos == end)
			return false;
		if (skip(pos, end, "\""))
			return true;
		if (skip(pos, end, "\\u"))
		{
			unit = read_unit(pos, end);
			if (unit < 0 || (unit == 0 && is_name))
				return false;
			if (unit >= 0xD800 && unit <= 0xDBFF)
			{
				/* a pair, whose second half must not occur alone */
				unit = skip(pos, end, "\\u") ? read_unit(pos, end) : -1;
				if (unit < 0xDC00 || unit > 0xDFFF)
					return false;
			}
			else if (unit >= 0xDC00 && unit <= 0xDFFF)
				return false;
		}
		else if (skip(pos, end, "\\"))
		{
			if (*pos == end || !memchr("\"\\/bfnrt", *(*pos)++, 8))
				return false;
		}
		else if (read_code_point(pos, end) < 0x20)
			return false;
	}
}

/* From 0.17 on, json-c's strict mode takes no integer beyond 64 bits. */
static bool
read_number(const char **pos, const char *end)
{
	const char *start = *pos;

	skip(pos, end, "-");
	if (!skip(pos, end, "0") && !skip_digits(pos, end))
		return false;
	if (*pos - start >= 19)
		has_long_number = true;
	if (skip(pos, end, ".") && !skip_digits(pos, end))
		return false;
	if (!skip(pos, end, "e") && !skip(pos, end, "E"))
		return true;
	if (!skip(pos, end, "+"))
		skip(pos, end, "-");
	return skip_digits(pos, end);
}

/* An object or an array, after its first bracket. */
static bool
read_list(const char **pos, const char *end, const char *bracket,
		  bool has_names, int depth)
{
	skip_space(pos, end);
	if (skip(pos, end, bracket))
		return true;
	do
	{
		skip_space(pos, end);
		if (has_names)
		{
			if (!read_string(pos, end, true))
				return false;
			skip_space(pos, end);
			if (!skip(pos, end, ":"))
				return false;
			skip_space(pos, end);
		}
		if (!read_value(pos, end, depth))
			return false;
		skip_space(pos, end);
	} while (skip(pos, end, ","));
	return skip(pos, end, bracket);
}

/* Also false if values are nested more deeply than "depth". */
static bool
read_value(const char **pos, const char *end, int depth)
{
	if (depth == 0)
		return false;
	if (skip(pos, end, "{"))
		return read_list(pos, end, "}", true, depth - 1);
	if (skip(pos, end, "["))
		return read_list(pos, end, "]", false, depth - 1);
	if (*pos < end && **pos == '"')
		return read_string(pos, end, false);
	return skip(pos, end, "true") || skip(pos, end, "false") ||
		skip(pos, end, "null") || read_number(pos, end);
}

static bool
is_object(const char *body, size_t length)
{
	const char *pos = body;
	const char *end = body + length;

	has_long_number = false;
	skip_space(&pos, end);
	if (pos == end || *pos != '{' || !read_value(&pos, end, MAX_DEPTH))
		return false;
	skip_space(&pos, end);
	return pos == end;
}

/*
 * What has to hold
 */

static void
check_token(const char *token)
{
	size_t		length = strlen(token);

	CHECK(length >= 1 && length <= SGT_MAX_TOKEN_LENGTH);
	for (size_t i = 0; i < length; i++)
		CHECK(token[i] >= 0x20 && token[i] <= 0x7E);
}

/* Undoes, in place, what JSON does to a string, or else a URL's escapes. */
static void
unescape(char *str, bool is_json)
{
	char	   *out = str;

	while (*str)
	{
		int			n = is_json ? 6 : 3;
		int			byte = -1;

		if (strncmp(str, is_json ? "\\u00" : "%", n - 2) == 0)
			byte = read_hex(str + n - 2, 2);
		if (byte < 0)
		{
			n = is_json && str[0] == '\\' && str[1] ? 2 : 1;
			byte = str[n - 1];
		}
		*out++ = (char) byte;
		str += n;
	}
	*out = '\0';
}

/* Does a text hold a secret, or a good piece of one? */
static bool
has_secret(const char *str, const char *secret)
{
	int			n = 0;

	if (strlen(secret) >= MIN_SECRET && strstr(str, secret))
		return true;
	for (; *secret; secret++)
	{
		char		piece[MIN_PIECE + 1] = {0};

		n = isalnum((unsigned char) *secret) ? n + 1 : 0;
		if (n < MIN_PIECE)
			continue;
		memcpy(piece, secret + 1 - MIN_PIECE, MIN_PIECE);
		if (strstr(str, piece))
			return true;
	}
	return false;
}

/* Each letter of "steps" undoes an escape: "j" JSON's, "p" a URL's. */
static void
check_no_secret(const char *str, const char *steps)
{
	char		plain[SGT_SHOWN_SIZE];

	memcpy(plain, str, strlen(str) + 1);
	for (; *steps; steps++)
		unescape(plain, *steps == 'j');
	for (int i = 0; i < secrets.n; i++)
	{
		if (!has_secret(plain, secrets.texts[i]))
			continue;
		fprintf(stderr, "shown: %s\nsecret: %s\n", str, secrets.texts[i]);
		CHECK(false);
	}
}

static void
check_shown(const char *str)
{
	const char *pos = str;
	const char *end = str + strlen(str);
	int			n = 0;

	for (; pos < end; n++)
	{
		long		c = read_code_point(&pos, end);

		/* nothing that controls, has no width, or turns the direction */
		CHECK(c >= 0x20 && (c < 0x7F || c > 0x9F) && c != 0xAD && c != 0x61C);
		CHECK((c < 0x200B || c > 0x200F) && (c < 0x2028 || c > 0x202E));
		CHECK((c < 0x2060 || c > 0x206F) && c != 0xFEFF);
	}
	CHECK(n <= SGT_MAX_SHOWN);
	CHECK((size_t) (end - str) < SGT_SHOWN_SIZE);
	check_no_secret(str, "");
	check_no_secret(str, "j");
	check_no_secret(str, "jj");
	check_no_secret(str, "p");
	check_no_secret(str, "pp");
	check_no_secret(str, "jp");
}

/* One line for each entry of which something prints. */
static void
check_details(char *details)
{
	int			n = 0;

	for (char *line = strtok(details, "\n"); line; line = strtok(NULL, "\n"))
	{
		check_shown(line);
		n++;
	}
	CHECK(n <= 10);
}

/*
 * The calls
 */

static Result
call(char function, const char *body, size_t length)
{
	Result		result = {0};
	TokenPair	pair = {NULL, NULL};
	ApiErrors	errors = {NULL, NULL, NULL};
	const char *problem = NULL;
	char	   *shown;

	switch (function)
	{
		case 't':
			result.status = sgt_read_token_pair(body, length, alloc_result,
												&pair, &problem);
			CHECK(result.status != CODEC_TOO_DEEP);
			CHECK((result.status == CODEC_MALFORMED) == (problem != NULL));
			if (result.status == CODEC_OK)
			{
				result.texts[0] = pair.token;
				result.texts[1] = pair.refresh_token;
			}
			else
				result.texts[2] = (char *) problem;
			break;
		case 'e':
			result.status = sgt_read_api_errors(body, length, &secrets,
												alloc_result, &errors);
			CHECK(result.status != CODEC_TOO_DEEP);
			if (result.status == CODEC_OK)
			{
				result.texts[0] = errors.message;
				result.texts[1] = errors.details;
				result.texts[2] = errors.url;
			}
			break;
		case 'o':
			result.status = sgt_check_json_object(body, length);
			break;
		case 'c':
			result.status = CODEC_OK;
			shown = alloc_result(SGT_SHOWN_SIZE);
			if (shown)
				CHECK(sgt_clean(shown, body, length, &secrets) == strlen(shown));
			result.texts[0] = shown;
			break;
	}
	return result;
}

static bool
is_same(const Result *a, const Result *b)
{
	for (int i = 0; i < 3; i++)
	{
		if (!a->texts[i] != !b->texts[i] ||
			(a->texts[i] && strcmp(a->texts[i], b->texts[i]) != 0))
			return false;
	}
	return a->status == b->status;
}

/*
 * The same object with one more member gives the same tokens.
 */
static void
check_longer(const Result *result, const char *body, size_t length)
{
	static const char member[] = ",\"not known\":[]}";
	char	   *longer = malloc(length + sizeof(member));
	Result		other;

	while (body[length - 1] != '}')
		length--;
	memcpy(longer, body, length);
	longer[length] = '\0';
	/* the input itself may have this member */
	if (!strstr(longer, "not known"))
	{
		strcpy(longer + length - 1, member);
		other = call('t', longer, strlen(longer));
		CHECK(is_same(result, &other));
	}
	free(longer);
}

static void
check_result(char function, const Result *result, const char *body,
			 size_t length)
{
	bool		ok = result->status == CODEC_OK;

	CHECK(result->status != CODEC_NO_MEMORY);
	switch (function)
	{
		case 't':
			if (!ok)
				break;
			CHECK(is_object(body, length));
			check_token(result->texts[0]);
			check_token(result->texts[1]);
			check_longer(result, body, length);
			break;
		case 'e':
			if (!ok)
				break;
			check_shown(result->texts[0]);
			check_details(result->texts[1]);
			if (result->texts[2])
				check_shown(result->texts[2]);
			break;
		case 'o':
			CHECK(ok == is_object(body, length) || (!ok && has_long_number));
			break;
		case 'c':
			check_shown(result->texts[0]);
			break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char functions[] = "teoc";
	char		function;
	char	   *body;
	size_t		length;
	Result		first;
	Result		again;
	Result		starved;

	if (size < 2)
		return 0;
	function = data[0] && strchr(functions, data[0]) ? (char) data[0] :
		functions[data[0] % 4];
	body = expand(data + 2, size - 2, &length);

	failing_result = 0;
	failing_malloc = 0;
	first = call(function, body, length);
	again = call(function, body, length);
	CHECK(is_same(&first, &again));

	if (data[1] > '0' && data[1] <= '9')
		failing_result = n_results + data[1] - '0';
	else if (data[1] > '9' && getenv("FUZZ_JSON_C"))
		failing_malloc = data[1] - '9';
	if (failing_result || failing_malloc)
	{
		n_mallocs = 0;
		counting = true;
		starved = call(function, body, length);
		counting = false;
		failing_result = 0;		/* it may not have come to that */

		/* json-c does not always report that memory was short */
		CHECK(is_same(&starved, &first) ||
			  starved.status == CODEC_NO_MEMORY ||
			  (failing_malloc && starved.status == CODEC_MALFORMED) ||
			  (function == 'c' && !starved.texts[0]));
	}

	check_result(function, &first, body, length);
	free_results();
	free(body);
	return 0;
}
