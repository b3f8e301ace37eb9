/*-------------------------------------------------------------------------
 * rows.c
 *		SQL values as arguments of a call, and results of calls as rows.
 *
 * It knows the signatures and the result types in the extension's script, for
 * functions.c and scan.c, and calls nothing.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "rows.h"

/*
 * Reads SGT_N_ARGS values.  The arguments point to the values themselves, or
 * to what was detoasted into the current memory context.
 */
void
sgt_get_args(const NullableDatum *values, GuestTokenArgs *args)
{
	memset(args, 0, sizeof(*args));
	if (!values[0].isnull)
		args->addresses = DatumGetArrayTypeP(values[0].value);
	args->has_expire_at = !values[1].isnull;
	if (args->has_expire_at)
		args->expire_at = DatumGetInt32(values[1].value);
	if (!values[2].isnull)
		args->region = DatumGetTextPP(values[2].value);
	if (!values[3].isnull)
		args->ch = DatumGetTextPP(values[3].value);
	if (!values[4].isnull)
		args->expires_in = DatumGetIntervalP(values[4].value);
}

/*
 * Refuses a result type that is not as the script made it: all text.
 */
void
sgt_check_result_type(Oid type, TupleDesc desc, int n_columns)
{
	bool		fits = desc && desc->natts == n_columns;

	for (int i = 0; fits && i < n_columns; i++)
		fits = TupleDescAttr(desc, i)->atttypid == TEXTOID;
	if (!fits)
		sgt_refuse_type(type);
}

/*
 * An altered type is refused even if it looks as before: a dropped attribute
 * leaves its place in every row.
 */
void
sgt_refuse_type(Oid type)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg("type %s has been altered", format_type_be(type)),
			 errhint("Undo the change of the type.  If an attribute was added or dropped, that is not possible: drop the extension and create it again.")));
}

/*
 * Fills in SGT_N_COLUMNS columns: with the pair, or if there is none, with the
 * error.
 */
void
sgt_fill_columns(Datum *values, bool *nulls, const TokenPair *pair,
				 const CallError *error)
{
	for (int i = 0; i < SGT_N_COLUMNS; i++)
		nulls[i] = (i < SGT_N_PAIR_COLUMNS) != (pair != NULL);
	if (pair)
	{
		values[SGT_TOKEN] = CStringGetTextDatum(pair->token);
		values[SGT_REFRESH_TOKEN] = CStringGetTextDatum(pair->refresh_token);
	}
	else
	{
		values[SGT_ERROR_CODE] =
			CStringGetTextDatum(unpack_sql_state(error->sqlstate));
		values[SGT_ERROR] = CStringGetTextDatum(error->message);
	}
}

/*
 * Makes a composite of a result; the descriptor must be blessed.
 */
Datum
sgt_make_row(TupleDesc desc, const TokenPair *pair, const CallError *error)
{
	Datum		values[SGT_N_COLUMNS];
	bool		nulls[SGT_N_COLUMNS];

	sgt_fill_columns(values, nulls, pair, error);
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}
