/*-------------------------------------------------------------------------
 * codec.c
 *		Writes the API's request bodies and judges its response bodies.
 *
 * It knows the API's JSON, but nothing of PostgreSQL (json-c's json_object
 * collides with a function of the server), of HTTP or of SQLSTATEs.  Code
 * that cannot raise leaks nothing over a longjmp, and can be fuzzed by
 * itself.
 *
 * 1. Results come from the caller's allocator, which returns NULL when memory
 *    is short.  json-c's objects never outlive the call that made them.
 * 2. A response must follow RFC 8259.  json-c checks how the tokens of the
 *    text fit together; check_json() checks the tokens themselves, because
 *    json-c lets too much pass.  Only read_plain_pair() does without both,
 *    and it accepts nothing but the documented answer.
 * 3. No text from outside leaves this file for a message except through
 *    sgt_clean(), which bounds it, blanks secrets and drops what does not print.
 *-------------------------------------------------------------------------
 */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "codec.h"
#include "text.h"

/*
 * Marks what the caller shows in the user's language, like PostgreSQL's own.
 */
#define gettext_noop(text)	(text)

/* Far beyond any real response, and shallow enough for json-c's recursion. */
#define MAX_JSON_DEPTH		64

/*
 * Likewise, commas and opening brackets.  json-c needs up to a kilobyte for a
 * value of two bytes.
 */
#define MAX_JSON_MARKS		10000

#define ONE_IN_EACH_BYTE	UINT64_C(0x0101010101010101)

/* How many entries of a 422 are shown. */
#define MAX_SHOWN_ERRORS	10

/* A part of a text, without a terminator. */
typedef struct Piece
{
	const char *start;
	size_t		length;
} Piece;

static bool add_member(json_object *object, const char *key,
					   json_object *value);
static char *finish_body(json_object *object, bool ok, CodecAlloc alloc);
static bool read_plain_pair(const char *body, size_t length, Piece *token,
							Piece *refresh_token);
static bool read_plain_string(const char **pos, const char *end,
							  Piece *string);
static bool is_plain(const Piece *string);
static uint64_t odd_bytes(uint64_t word);
static bool skip_mark(const char **pos, const char *end, char mark);
static bool is_named(const Piece *name, const char *wanted);
static CodecStatus parse_token_pair(const char *body, size_t length,
									CodecAlloc alloc, TokenPair *pair,
									const char **problem);
static bool may_have_too_many_values(const char *body, size_t length);
static CodecStatus parse_object(const char *body, size_t length,
								json_object **object);
static const char *check_json(const char *body, size_t length,
							  size_t *n_members);
static const char *check_string(const char **pos, const char *end,
								bool *has_nul);
static bool check_number(const char **pos, const char *end);
static bool skip_digits(const char **pos, const char *end);
static bool check_literal(const char **pos, const char *end);
static size_t count_members(json_object *value);
static const char *find_token(json_object *object, const char *key,
							  const char *missing, const char *unfit,
							  Piece *token);
static CodecStatus copy_pair(const Piece *token, const Piece *refresh_token,
							 CodecAlloc alloc, TokenPair *pair);
static char *copy_text(const char *str, size_t length, CodecAlloc alloc);
static size_t write_line(json_object *entry, char *line);
static void append(char *line, size_t *length, const char *str, size_t n);
static Piece find_text(json_object *entry, const char *key);

/*
 * Requests
 */

/*
 * The body that asks for a guest token, or NULL if memory is short.
 */
char	   *
sgt_write_guest_token_body(const GuestTokenBody *request, CodecAlloc alloc)
{
	json_object *object = json_object_new_object();
	json_object *addresses = json_object_new_array_ext(SGT_MAX_ADDRESSES);
	bool		ok = add_member(object, "allowed_addresses", addresses);

	for (int i = 0; ok && i < request->n_addresses; i++)
	{
		json_object *address = json_object_new_string(request->addresses[i]);

		ok = address != NULL && json_object_array_add(addresses, address) == 0;
		if (!ok)
			json_object_put(address);
	}
	if (ok && request->has_expire_at)
		ok = add_member(object, "expire_at",
						json_object_new_int64(request->expire_at));
	if (ok && request->region)
		ok = add_member(object, "region",
						json_object_new_string(request->region));
	if (ok && request->ch)
		ok = add_member(object, "ch", json_object_new_string(request->ch));

	return finish_body(object, ok, alloc);
}

/*
 * The body that trades a refresh token for a new pair, or NULL if memory is
 * short.
 */
char	   *
sgt_write_refresh_body(const char *refresh_token, CodecAlloc alloc)
{
	json_object *object = json_object_new_object();
	bool		ok = add_member(object, "refresh_token",
								json_object_new_string(refresh_token));

	return finish_body(object, ok, alloc);
}

/*
 * Takes over "value", and frees it if this returns false.  Both may be NULL,
 * which is how json-c says that memory is short.
 */
static bool
add_member(json_object *object, const char *key, json_object *value)
{
	if (object && value && json_object_object_add(object, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

/*
 * Prints the object and disposes of it.
 */
static char *
finish_body(json_object *object, bool ok, CodecAlloc alloc)
{
	size_t		length;
	const char *str = NULL;
	char	   *body = NULL;

	if (ok)
		str = json_object_to_json_string_length(object,
												JSON_C_TO_STRING_PLAIN |
												JSON_C_TO_STRING_NOSLASHESCAPE,
												&length);

	if (str)
		body = copy_text(str, length, alloc);
	json_object_put(object);
	return body;
}

/*
 * Responses
 */

/*
 * Judges the body of a 201.
 *
 * It must be an object with the members "token" and "refresh_token", each a
 * string of printable ASCII; unknown members are ignored.  If the answer is
 * CODEC_MALFORMED, *problem says what is wrong in a sentence that quotes
 * nothing: the body may hold tokens.
 */
CodecStatus
sgt_read_token_pair(const char *body, size_t length, CodecAlloc alloc,
					TokenPair *pair, const char **problem)
{
	Piece		token;
	Piece		refresh_token;

	if (read_plain_pair(body, length, &token, &refresh_token) &&
		is_plain(&token) && is_plain(&refresh_token))
		return copy_pair(&token, &refresh_token, alloc, pair);
	return parse_token_pair(body, length, alloc, pair, problem);
}

/*
 * Finds the tokens in a body that is just what the API documents: an object of
 * these two members, in either order.  The caller has to check their
 * characters, because an escape would end a string too early.  False says
 * nothing about validity; the caller then parses in full.
 *
 * It takes 1 us where json-c and the checks that it needs take 7, a tenth of
 * the CPU time of a call over TLS.
 */
static bool
read_plain_pair(const char *body, size_t length, Piece *token,
				Piece *refresh_token)
{
	const char *pos = body;
	const char *end = body + length;
	Piece		names[2];
	Piece		values[2];
	int			first;			/* which of the members is "token" */

	for (int i = 0; i < 2; i++)
	{
		if (!skip_mark(&pos, end, i == 0 ? '{' : ',') ||
			!read_plain_string(&pos, end, &names[i]) ||
			!skip_mark(&pos, end, ':') ||
			!read_plain_string(&pos, end, &values[i]))
			return false;
	}
	if (!skip_mark(&pos, end, '}'))
		return false;
	while (pos < end && sgt_is_space(*pos))
		pos++;
	if (pos < end)
		return false;

	first = is_named(&names[0], "token") ? 0 : 1;
	*token = values[first];
	*refresh_token = values[1 - first];
	return is_named(&names[first], "token") &&
		is_named(&names[1 - first], "refresh_token");
}

/*
 * A string as long as a token may be, up to the next quotation mark.
 */
static bool
read_plain_string(const char **pos, const char *end, Piece *string)
{
	const char *mark;

	if (!skip_mark(pos, end, '"'))
		return false;
	mark = memchr(*pos, '"', (size_t) (end - *pos));
	if (!mark)
		return false;
	string->start = *pos;
	string->length = (size_t) (mark - *pos);
	*pos = mark + 1;
	return string->length > 0 && string->length <= SGT_MAX_TOKEN_LENGTH;
}

/*
 * Whether a string is printable ASCII without an escape.  Looking at eight
 * characters at a time saves 4 % of a call's instructions.
 */
static bool
is_plain(const Piece *string)
{
	const char *pos = string->start;
	size_t		left = string->length;
	uint64_t	word;
	uint64_t	odd = 0;

	for (; left >= sizeof(word); pos += sizeof(word), left -= sizeof(word))
	{
		memcpy(&word, pos, sizeof(word));
		odd |= odd_bytes(word);
	}
	word = ' ' * ONE_IN_EACH_BYTE;
	memcpy(&word, pos, left);
	odd |= odd_bytes(word);
	return odd == 0 &&
		memchr(string->start, '\\', string->length) == NULL;
}

/*
 * Not 0 if any of eight characters is not printable ASCII.  The highest bit
 * of a byte tells: beyond ASCII it is set in the byte itself, for DEL in the
 * byte plus 1, and for a control character in the byte minus a space.  Only
 * bytes that are found like this carry into others.
 */
static uint64_t
odd_bytes(uint64_t word)
{
	return (word | (word + ONE_IN_EACH_BYTE) |
			(word - ' ' * ONE_IN_EACH_BYTE)) & (0x80 * ONE_IN_EACH_BYTE);
}

/*
 * Goes past white space and the mark.
 */
static bool
skip_mark(const char **pos, const char *end, char mark)
{
	while (*pos < end && sgt_is_space(**pos))
		(*pos)++;
	return *pos < end && *(*pos)++ == mark;
}

static bool
is_named(const Piece *name, const char *wanted)
{
	return name->length == strlen(wanted) &&
		memcmp(name->start, wanted, name->length) == 0;
}

/*
 * Does sgt_read_token_pair()'s work for any body.
 */
static CodecStatus
parse_token_pair(const char *body, size_t length, CodecAlloc alloc,
				 TokenPair *pair, const char **problem)
{
	json_object *object;
	size_t		n_members;
	Piece		token;
	Piece		refresh_token;
	CodecStatus status;

	*problem = check_json(body, length, &n_members);
	if (!*problem && may_have_too_many_values(body, length))
		*problem = gettext_noop("The body has too many JSON values.");
	if (*problem)
		return CODEC_MALFORMED;

	status = parse_object(body, length, &object);
	if (status == CODEC_NO_MEMORY)
		return status;
	if (status != CODEC_OK)
	{
		*problem = gettext_noop("The body is not a JSON object.");
		return CODEC_MALFORMED;
	}

	/* of members with the same name json-c keeps only the last */
	if (count_members(object) != n_members)
		*problem = gettext_noop("A member of the JSON object is repeated.");
	if (!*problem)
		*problem = find_token(object, "token",
							  gettext_noop("The member \"token\" is missing or not a string."),
							  gettext_noop("The member \"token\" is not a token."),
							  &token);
	if (!*problem)
		*problem = find_token(object, "refresh_token",
							  gettext_noop("The member \"refresh_token\" is missing or not a string."),
							  gettext_noop("The member \"refresh_token\" is not a token."),
							  &refresh_token);
	status = *problem ? CODEC_MALFORMED :
		copy_pair(&token, &refresh_token, alloc, pair);
	json_object_put(object);
	return status;
}

/*
 * Reads the documented body of a 422, leniently: whatever can be shown of a
 * refusal helps.  CODEC_MALFORMED means that the body has another shape.
 */
CodecStatus
sgt_read_api_errors(const char *body, size_t length,
					const SecretList *secrets, CodecAlloc alloc,
					ApiErrors *errors)
{
	json_object *object;
	json_object *list;
	json_object *first = NULL;
	Piece		message;
	Piece		url;
	size_t		n = 0;
	char	   *line;
	char	   *end;
	CodecStatus status;

	if (may_have_too_many_values(body, length))
		return CODEC_MALFORMED;
	status = parse_object(body, length, &object);
	if (status != CODEC_OK)
		return status == CODEC_NO_MEMORY ? status : CODEC_MALFORMED;

	if (json_object_object_get_ex(object, "errors", &list) &&
		json_object_is_type(list, json_type_array))
		n = json_object_array_length(list);
	if (n > MAX_SHOWN_ERRORS)
		n = MAX_SHOWN_ERRORS;
	if (n > 0)
		first = json_object_array_get_idx(list, 0);
	if (!json_object_is_type(first, json_type_object) ||
		!json_object_is_type(json_object_object_get(first, "message"),
							 json_type_string))
	{
		json_object_put(object);
		return CODEC_MALFORMED;
	}

	errors->message = alloc(SGT_SHOWN_SIZE);
	errors->url = alloc(SGT_SHOWN_SIZE);
	errors->details = alloc(n * (SGT_SHOWN_SIZE + 1) + 1);
	line = alloc(SGT_MAX_SEEN);
	if (!errors->message || !errors->url || !errors->details || !line)
	{
		json_object_put(object);
		return CODEC_NO_MEMORY;
	}

	message = find_text(first, "message");
	sgt_clean(errors->message, message.start, message.length, secrets);
	url = find_text(first, "url");
	if (sgt_clean(errors->url, url.start, url.length, secrets) == 0)
		errors->url = NULL;

	end = errors->details;
	for (size_t i = 0; i < n; i++)
	{
		size_t		n_line = write_line(json_object_array_get_idx(list, i), line);

		if (n_line == 0)
			continue;
		if (end > errors->details)
			*end++ = '\n';
		end += sgt_clean(end, line, n_line, secrets);
	}
	*end = '\0';
	json_object_put(object);
	return CODEC_OK;
}

/*
 * Judges whether a text is one JSON object.
 */
CodecStatus
sgt_check_json_object(const char *str, size_t length)
{
	json_object *object;
	size_t		n_members;
	CodecStatus status;

	if (check_json(str, length, &n_members) != NULL)
		return CODEC_MALFORMED;
	status = parse_object(str, length, &object);
	if (status == CODEC_OK)
		json_object_put(object);
	return status;
}

/*
 * Whether a response may have more JSON values than any answer needs.  There is
 * at least one mark for each value but the first; those in strings count, too.
 */
static bool
may_have_too_many_values(const char *body, size_t length)
{
	size_t		n = 0;

	for (size_t i = 0; i < length; i++)
		n += body[i] == ',' || body[i] == '[' || body[i] == '{';
	return n > MAX_JSON_MARKS;
}

/*
 * Parses a text that must be one JSON object and nothing else.
 */
static CodecStatus
parse_object(const char *body, size_t length, json_object **object)
{
	json_tokener *tokener = json_tokener_new_ex(MAX_JSON_DEPTH);
	enum json_tokener_error error;
	bool		whole;

	if (!tokener)
		return CODEC_NO_MEMORY;

	/* json-c stops at the object's end, so white space after it is not seen */
	while (length > 0 && sgt_is_space(body[length - 1]))
		length--;

	*object = json_tokener_parse_ex(tokener, body, (int) length);
	error = json_tokener_get_error(tokener);
	whole = json_tokener_get_parse_end(tokener) == length;
	json_tokener_free(tokener);

	if (error == json_tokener_success && whole &&
		json_object_is_type(*object, json_type_object))
		return CODEC_OK;

	/* up to 0.16 a lack of memory looks like a null value */
	json_object_put(*object);
	return error == json_tokener_error_depth ? CODEC_TOO_DEEP : CODEC_MALFORMED;
}

/*
 * Goes through the tokens of a JSON text, and counts its objects' members.
 * Returns what is wrong, or NULL.
 *
 * json-c accepts NaN and Infinity; overlong UTF-8 and encoded surrogates;
 * some numbers that RFC 8259 does not allow; control characters in strings;
 * NULs, at which it cuts off a member's name; a comma after a last element.
 * Its strict mode is not used, because 0.18's refuses all characters beyond
 * ASCII.  What json-c does check is how the tokens follow each other.
 */
static const char *
check_json(const char *body, size_t length, size_t *n_members)
{
	const char *pos = body;
	const char *end = body + length;
	char		last = '\0';	/* what the last token began with */
	bool		has_nul = false;	/* an escaped one, in the last string */
	const char *problem;

	*n_members = 0;
	while (pos < end)
	{
		if (last == ',' && (*pos == '}' || *pos == ']'))
			return gettext_noop("The body is not JSON.");
		if (!sgt_is_space(*pos))
			last = *pos;

		if (sgt_is_space(*pos) || strchr("{}[],", *pos))
		{
			/* strchr() finds the terminator, too */
			if (*pos == '\0')
				return gettext_noop("The body contains a NUL byte.");
			pos++;
		}
		else if (*pos == ':')
		{
			if (has_nul)
				return gettext_noop("The name of a JSON member contains a NUL character.");
			(*n_members)++;
			pos++;
		}
		else if (*pos == '"')
		{
			problem = check_string(&pos, end, &has_nul);
			if (problem)
				return problem;
		}
		else if (!check_number(&pos, end) && !check_literal(&pos, end))
			return gettext_noop("The body is not JSON.");
	}
	return NULL;
}

static const char *
check_string(const char **pos, const char *end, bool *has_nul)
{
	const char *p = *pos + 1;

	*has_nul = false;
	while (p < end && *p != '"')
	{
		unsigned char c = (unsigned char) *p;

		if (c < 0x20)
			return gettext_noop("A JSON string contains a control character.");
		if (c >= 0x80)
		{
			size_t		n = sgt_utf8_length((const unsigned char *) p, end - p);

			if (n == 0)
				return gettext_noop("The body is not UTF-8.");
			p += n;
		}
		else if (c != '\\')
			p++;
		else if (p + 1 < end && p[1] == 'u')
		{
			int			unit = sgt_read_hex4(p + 2, end);

			p += 6;
			if (unit == 0)
				*has_nul = true;

			/* a high surrogate and a low one make a character together */
			if (unit >= 0xD800 && unit <= 0xDBFF &&
				end - p >= 2 && p[0] == '\\' && p[1] == 'u')
			{
				int			low = sgt_read_hex4(p + 2, end);

				unit = low >= 0xDC00 && low <= 0xDFFF ? 0x10000 : -1;
				p += 6;
			}
			if (unit < 0 || (unit >= 0xD800 && unit <= 0xDFFF))
				return gettext_noop("A JSON string contains an invalid escape.");
		}
		else if (p + 1 < end && p[1] != '\0' && strchr("\"\\/bfnrt", p[1]))
			p += 2;
		else
			return gettext_noop("A JSON string contains an invalid escape.");
	}
	if (p >= end)
		return gettext_noop("The body is cut off in a JSON string.");
	*pos = p + 1;
	return NULL;
}

/* RFC 8259, section 6: [-] int [frac] [exp] */
static bool
check_number(const char **pos, const char *end)
{
	const char *p = *pos;
	const char *digits;

	if (p < end && *p == '-')
		p++;
	digits = p;
	if (!skip_digits(&p, end) || (*digits == '0' && p > digits + 1))
		return false;
	if (p < end && *p == '.')
	{
		p++;
		if (!skip_digits(&p, end))
			return false;
	}
	if (p < end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		if (!skip_digits(&p, end))
			return false;
	}
	*pos = p;
	return true;
}

/*
 * Goes past digits; false if there are none.
 */
static bool
skip_digits(const char **pos, const char *end)
{
	const char *start = *pos;

	while (*pos < end && **pos >= '0' && **pos <= '9')
		(*pos)++;
	return *pos > start;
}

static bool
check_literal(const char **pos, const char *end)
{
	static const char *const literals[] = {"true", "false", "null"};

	for (int i = 0; i < 3; i++)
	{
		size_t		length = strlen(literals[i]);

		if ((size_t) (end - *pos) >= length &&
			memcmp(*pos, literals[i], length) == 0)
		{
			*pos += length;
			return true;
		}
	}
	return false;
}

/*
 * Counts the members of all objects in a value.  The recursion is no deeper
 * than MAX_JSON_DEPTH, beyond which nothing was parsed.
 */
static size_t
count_members(json_object *value)
{
	size_t		n = 0;

	if (json_object_is_type(value, json_type_object))
	{
		json_object_object_foreach(value, key, member)
		{
			(void) key;
			n += 1 + count_members(member);
		}
	}
	else if (json_object_is_type(value, json_type_array))
	{
		for (size_t i = 0; i < json_object_array_length(value); i++)
			n += count_members(json_object_array_get_idx(value, i));
	}
	return n;
}

/*
 * Finds a token in the response.  Returns what is wrong, or NULL.
 */
static const char *
find_token(json_object *object, const char *key, const char *missing,
		   const char *unfit, Piece *token)
{
	json_object *value;

	if (!json_object_object_get_ex(object, key, &value) ||
		!json_object_is_type(value, json_type_string))
		return missing;

	token->start = json_object_get_string(value);
	token->length = (size_t) json_object_get_string_len(value);
	if (token->length == 0 || token->length > SGT_MAX_TOKEN_LENGTH)
		return unfit;
	for (size_t i = 0; i < token->length; i++)
	{
		if (token->start[i] < 0x20 || token->start[i] > 0x7E)
			return unfit;
	}
	return NULL;
}

static CodecStatus
copy_pair(const Piece *token, const Piece *refresh_token, CodecAlloc alloc,
		  TokenPair *pair)
{
	pair->token = copy_text(token->start, token->length, alloc);
	pair->refresh_token = copy_text(refresh_token->start,
									refresh_token->length, alloc);
	return pair->token && pair->refresh_token ? CODEC_OK : CODEC_NO_MEMORY;
}

static char *
copy_text(const char *str, size_t length, CodecAlloc alloc)
{
	char	   *copy = alloc(length + 1);

	if (!copy)
		return NULL;
	memcpy(copy, str, length);
	copy[length] = '\0';
	return copy;
}

/*
 * Writes what an entry of a 422 says, as "attribute: message (code)", to
 * "line" of SGT_MAX_SEEN bytes, and returns the length.  What is absent is
 * left out, and what does not fit is cut off.  The text is as the server wrote
 * it.
 */
static size_t
write_line(json_object *entry, char *line)
{
	Piece		attribute = find_text(entry, "attribute");
	Piece		message = find_text(entry, "message");
	Piece		code = find_text(entry, "code");
	size_t		length = 0;

	if (attribute.length > 0)
	{
		append(line, &length, attribute.start, attribute.length);
		append(line, &length, ": ", 2);
	}
	append(line, &length, message.start, message.length);
	if (code.length > 0)
	{
		append(line, &length, " (", 2);
		append(line, &length, code.start, code.length);
		append(line, &length, ")", 1);
	}
	return length;
}

static void
append(char *line, size_t *length, const char *str, size_t n)
{
	size_t		room = SGT_MAX_SEEN - *length;

	if (n > room)
		n = room;
	memcpy(line + *length, str, n);
	*length += n;
}

/*
 * A string member of an error entry, without white space around it; empty if
 * there is none.
 */
static Piece
find_text(json_object *entry, const char *key)
{
	Piece		piece = {"", 0};
	json_object *value = NULL;

	if (!json_object_is_type(entry, json_type_object) ||
		!json_object_object_get_ex(entry, key, &value) ||
		!json_object_is_type(value, json_type_string))
		return piece;

	piece.start = json_object_get_string(value);
	piece.length = (size_t) json_object_get_string_len(value);

	while (piece.length > 0 && sgt_is_space(piece.start[0]))
	{
		piece.start++;
		piece.length--;
	}
	while (piece.length > 0 && sgt_is_space(piece.start[piece.length - 1]))
		piece.length--;
	return piece;
}
