/*-------------------------------------------------------------------------
 * functions.c
 *		The SQL-callable functions, and the library's entry point.
 *
 * It knows fmgr's conventions and rows, but not libcurl, and no JSON beyond
 * what the server itself does with it.
 *
 * Result types come from the call, never from a look-up by name: whoever
 * controls the search_path must not choose them.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

#include "compat.h"
#include "guard.h"
#include "messages.h"
#include "plan.h"
#include "rows.h"
#include "settings.h"
#include "tokens.h"

SGT_MODULE_MAGIC("sw_guest_token", SGT_VERSION);

/* The attributes of sw_guest_token_request, which are the first arguments */
#define N_REQUEST_ATTRIBUTES	4

/* One call of sw_create_guest_tokens() */
typedef struct RequestScan
{
	ArrayIterator iterator;
	TupleDesc	desc;			/* of the requests */
	MemoryContext context;		/* holds the arguments of one */
	ReturnSetInfo *result;
} RequestScan;

/* Far longer than any token's; reading a header cannot be interrupted. */
#define MAX_HEADER_LENGTH	(1024 * 1024)

PGDLLEXPORT void _PG_init(void);

PG_FUNCTION_INFO_V1(sw_create_guest_token);
PG_FUNCTION_INFO_V1(sw_try_create_guest_token);
PG_FUNCTION_INFO_V1(sw_create_guest_tokens);
PG_FUNCTION_INFO_V1(sw_refresh_guest_token);
PG_FUNCTION_INFO_V1(sw_token_header);

static TupleDesc get_result_desc(FunctionCallInfo fcinfo, int n_columns);
static TupleDesc get_request_desc(Oid type);
static bool next_request(RequestScan *scan, GuestTokenArgs *args);
static void put_result(void *arg, int ordinality, const TokenPair *pair,
					   const CallError *error);
static char *decode_base64url(const char *str, int length,
							  int *result_length);
static bool has_wide_escape(const char *json);
static void refuse_header(const char *detail) pg_attribute_noreturn();

/*
 * Even a WARNING serves interrupts.  If one of them left this function halfway,
 * PostgreSQL would call it again, and defining a setting twice is an error: no
 * function would work for the rest of the session.
 */
void
_PG_init(void)
{
	HOLD_INTERRUPTS();
	sgt_define_settings();
	sgt_install_planner(sw_create_guest_token, sw_try_create_guest_token);
	if (process_shared_preload_libraries_in_progress)
		sgt_install_guard();
	RESUME_INTERRUPTS();
}

/*
 * sw_create_guest_token(addresses uuid[], expire_at int, region text, ch text,
 *						 expires_in interval)
 *		returns sw_guest_token
 */
Datum
sw_create_guest_token(PG_FUNCTION_ARGS)
{
	TupleDesc	desc = get_result_desc(fcinfo, SGT_N_PAIR_COLUMNS);
	GuestTokenArgs args;
	TokenPair	pair;

	sgt_get_args(fcinfo->args, &args);
	sgt_create_guest_token(&args, &pair);
	return sgt_make_row(desc, &pair, NULL);
}

/*
 * sw_try_create_guest_token(addresses uuid[], expire_at int, region text,
 *							 ch text, expires_in interval)
 *		returns sw_guest_token_result
 */
Datum
sw_try_create_guest_token(PG_FUNCTION_ARGS)
{
	TupleDesc	desc = get_result_desc(fcinfo, SGT_N_COLUMNS);
	GuestTokenArgs args;
	TokenPair	pair;
	CallError	error;
	bool		ok;

	sgt_get_args(fcinfo->args, &args);
	ok = sgt_try_create_guest_token(&args, &pair, &error);
	return sgt_make_row(desc, ok ? &pair : NULL, &error);
}

/*
 * sw_refresh_guest_token(refresh_token text) returns sw_guest_token
 */
Datum
sw_refresh_guest_token(PG_FUNCTION_ARGS)
{
	TupleDesc	desc = get_result_desc(fcinfo, SGT_N_PAIR_COLUMNS);
	TokenPair	pair;

	sgt_refresh_guest_token(PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0),
							&pair);
	return sgt_make_row(desc, &pair, NULL);
}

/*
 * The result type, found before anything is sent.
 */
static TupleDesc
get_result_desc(FunctionCallInfo fcinfo, int n_columns)
{
	TupleDesc	desc;
	Oid			type;

	if (get_call_result_type(fcinfo, &type, &desc) != TYPEFUNC_COMPOSITE)
		desc = NULL;
	sgt_check_result_type(type, desc, n_columns);
	return BlessTupleDesc(desc);
}

/*
 * sw_create_guest_tokens(requests sw_guest_token_request[])
 *		returns table (ordinality int, token text, refresh_token text,
 *					   error_code text, error text)
 *
 * Rows go into a tuplestore, which spills beyond work_mem.
 */
Datum
sw_create_guest_tokens(PG_FUNCTION_ARGS)
{
	RequestScan scan = {0};
	ArrayType  *requests;
	TokenStream *stream;
	GuestTokenArgs args;
	int			ordinality = 0;

	/* a batch judges the settings before its requests, even if it has none */
	(void) sgt_load_target();

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("requests must not be null")));
	requests = PG_GETARG_ARRAYTYPE_P(0);
	if (ARR_NDIM(requests) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("requests must have one dimension")));

	InitMaterializedSRF(fcinfo, 0);
	scan.result = (ReturnSetInfo *) fcinfo->resultinfo;
	scan.desc = get_request_desc(ARR_ELEMTYPE(requests));
	scan.iterator = array_create_iterator(requests, 0, NULL);
	scan.context = AllocSetContextCreate(CurrentMemoryContext,
										 "sw_guest_token request",
										 ALLOCSET_DEFAULT_SIZES);

	/* an error is caught in a subtransaction, whose context is deleted then */
	stream = sgt_begin_stream(CurTransactionContext, put_result, &scan);
	while (next_request(&scan, &args))
		sgt_submit_call(stream, &args, ++ordinality);
	while (sgt_take_result(stream))
		;
	sgt_end_calls(stream);

	MemoryContextDelete(scan.context);
	array_free_iterator(scan.iterator);
	ReleaseTupleDesc(scan.desc);
	return (Datum) 0;
}

/*
 * The row type of the requests, pinned.
 */
static TupleDesc
get_request_desc(Oid type)
{
	static const Oid types[N_REQUEST_ATTRIBUTES] = {
		UUIDARRAYOID, INT4OID, TEXTOID, TEXTOID
	};
	TupleDesc	desc = lookup_rowtype_tupdesc(type, -1);
	bool		fits = desc->natts == N_REQUEST_ATTRIBUTES;

	for (int i = 0; fits && i < N_REQUEST_ATTRIBUTES; i++)
		fits = TupleDescAttr(desc, i)->atttypid == types[i];
	if (!fits)
		sgt_refuse_type(type);
	return desc;
}

/*
 * Gives the next request's arguments; false if there is none.  They last until
 * the next call.
 */
static bool
next_request(RequestScan *scan, GuestTokenArgs *args)
{
	MemoryContext oldcontext;
	Datum		request;
	HeapTupleData tuple;
	NullableDatum values[SGT_N_ARGS] = {0};

	memset(args, 0, sizeof(*args));
	if (!array_iterate(scan->iterator, &request, &args->is_null))
		return false;
	if (args->is_null)
		return true;

	MemoryContextReset(scan->context);
	oldcontext = MemoryContextSwitchTo(scan->context);

	tuple.t_data = DatumGetHeapTupleHeader(request);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	for (int i = 0; i < N_REQUEST_ATTRIBUTES; i++)
		values[i].value = heap_getattr(&tuple, i + 1, scan->desc,
									   &values[i].isnull);
	values[N_REQUEST_ATTRIBUTES].isnull = true; /* expires_in */
	sgt_get_args(values, args);
	MemoryContextSwitchTo(oldcontext);
	return true;
}

static void
put_result(void *arg, int ordinality, const TokenPair *pair,
		   const CallError *error)
{
	RequestScan *scan = arg;
	Datum		values[1 + SGT_N_COLUMNS];
	bool		nulls[1 + SGT_N_COLUMNS] = {false};

	values[0] = Int32GetDatum(ordinality);
	sgt_fill_columns(values + 1, nulls + 1, pair, error);
	tuplestore_putvalues(scan->result->setResult, scan->result->setDesc,
						 values, nulls);
}

/*
 * sw_token_header(token text) returns jsonb
 *
 * Decodes a JWE's header; the rest is encrypted.
 */
Datum
sw_token_header(PG_FUNCTION_ARGS)
{
	text	   *token = PG_GETARG_TEXT_PP(0);
	const char *start = VARDATA_ANY(token);
	const char *dot = memchr(start, '.', VARSIZE_ANY_EXHDR(token));
	char	   *json;
	int			length;

	if (dot == NULL)
		refuse_header("The token has no dot.");
	if (dot - start > MAX_HEADER_LENGTH)
		refuse_header("The header is too long.");
	json = decode_base64url(start, dot - start, &length);
	if (json == NULL)
		refuse_header("The part before the first dot is not base64url.");

	switch (sgt_check_json_object(json, length))
	{
		case CODEC_OK:
			break;
		case CODEC_NO_MEMORY:
			sgt_raise_out_of_memory();
		case CODEC_TOO_DEEP:
			ereport(ERROR,
					(errcode(ERRCODE_STATEMENT_TOO_COMPLEX),
					 errmsg("header of the token is nested too deeply")));
			break;
		case CODEC_MALFORMED:
			refuse_header("The part before the first dot does not encode a JSON object.");
	}

	/* 22P05 if the database's encoding lacks a character */
	if (GetDatabaseEncoding() == PG_SQL_ASCII && has_wide_escape(json))
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("header of the token has a character that encoding \"%s\" cannot represent",
						GetDatabaseEncodingName())));
	json = pg_any_to_server(json, length, PG_UTF8);
	PG_RETURN_DATUM(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
}

/*
 * Decodes base64url without padding, as tokens have it, into a terminated
 * string; NULL if the text is not base64url.
 */
static char *
decode_base64url(const char *str, int length, int *result_length)
{
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	"abcdefghijklmnopqrstuvwxyz0123456789-_";
	char	   *base64 = palloc(length + 4);
	char	   *result;
	int			size;
	int			n = length;

	for (int i = 0; i < length; i++)
	{
		if (str[i] == '\0' || strchr(alphabet, str[i]) == NULL)
			return NULL;
		base64[i] = str[i] == '-' ? '+' : str[i] == '_' ? '/' : str[i];
	}
	while (n % 4 != 0)
		base64[n++] = '=';

	size = pg_b64_dec_len(n);
	result = palloc(size + 1);
	*result_length = sgt_b64_decode(base64, n, result, size);
	if (*result_length < 0)
		return NULL;
	result[*result_length] = '\0';
	return result;
}

/*
 * Whether a JSON text has an escape beyond ASCII: without an encoding, the
 * server could not say what it stands for.
 */
static bool
has_wide_escape(const char *json)
{
	for (const char *p = strchr(json, '\\'); p; p = strchr(p + 2, '\\'))
	{
		if (p[1] == 'u' && sgt_read_hex4(p + 2, p + 6) >= 0x80)
			return true;
	}
	return false;
}

static void
refuse_header(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("token has no valid header"),
			 errdetail_internal("%s", _(detail))));
}
