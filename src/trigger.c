/*-------------------------------------------------------------------------
 * trigger.c
 *		sw_guest_token_trigger(): issues a token as a row arrives.
 *
 * BEFORE INSERT OR UPDATE ... FOR EACH ROW.  The arguments name columns, as
 * those of contrib/spi do: addresses, token, refresh token, and optionally
 * expire_at, region and ch, where an empty string skips one.
 *
 * INSERT always issues; UPDATE only if an input column changed or the token
 * is NULL.  NULL addresses leave the row as it is.  All misuse is found
 * before anything is sent, and the error names the trigger or the column.
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "messages.h"
#include "tokens.h"

/* The trigger's arguments, in order */
enum
{
	ARG_ADDRESSES,
	ARG_TOKEN,
	ARG_REFRESH_TOKEN,
	ARG_EXPIRE_AT,
	ARG_REGION,
	ARG_CH,
	N_ARGS
};

#define MIN_ARGS	(ARG_REFRESH_TOKEN + 1)

PG_FUNCTION_INFO_V1(sw_guest_token_trigger);

static void check_trigger(FunctionCallInfo fcinfo);
static void find_columns(const TriggerData *trigger, int *columns);
static void check_column(TupleDesc desc, int arg, int number);
static bool is_due(const TriggerData *trigger, const int *columns);
static bool has_changed(const TriggerData *trigger, int number);
static void read_args(HeapTuple row, TupleDesc desc,
					  const int *columns, GuestTokenArgs *args);
static int64 read_expire_at(Datum value, Oid type, const char *column);
static text *read_text(HeapTuple row, TupleDesc desc, int number);

Datum
sw_guest_token_trigger(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	desc;
	HeapTuple	row;
	int			columns[N_ARGS];
	GuestTokenArgs args = {0};
	TokenPair	pair;
	Datum		values[2];
	bool		nulls[2] = {false, false};
	int			numbers[2];

	check_trigger(fcinfo);
	find_columns(trigger, columns);

	desc = RelationGetDescr(trigger->tg_relation);
	row = TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ?
		trigger->tg_newtuple : trigger->tg_trigtuple;
	if (!is_due(trigger, columns))
		return PointerGetDatum(row);
	read_args(row, desc, columns, &args);
	if (args.addresses == NULL)
		return PointerGetDatum(row);

	sgt_create_guest_token(&args, &pair);

	values[0] = CStringGetTextDatum(pair.token);
	values[1] = CStringGetTextDatum(pair.refresh_token);
	numbers[0] = columns[ARG_TOKEN];
	numbers[1] = columns[ARG_REFRESH_TOKEN];
	return PointerGetDatum(heap_modify_tuple_by_cols(row, desc, 2, numbers,
													 values, nulls));
}

static void
check_trigger(FunctionCallInfo fcinfo)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const char *name;
	int			n_args;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"%s\" was not called by trigger manager",
						"sw_guest_token_trigger")));

	name = trigger->tg_trigger->tgname;
	n_args = trigger->tg_trigger->tgnargs;
	if (!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!(TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		  TRIGGER_FIRED_BY_UPDATE(trigger->tg_event)))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must be fired BEFORE INSERT OR UPDATE FOR EACH ROW",
						name)));
	if (n_args < MIN_ARGS || n_args > N_ARGS)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must have %d to %d arguments",
						name, MIN_ARGS, N_ARGS),
				 errhint("The arguments are the names of the columns for addresses, token, refresh token, and optionally expire_at, region and ch.")));
}

/*
 * Finds which column each argument names; 0 if it is left out.
 */
static void
find_columns(const TriggerData *trigger, int *columns)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	char	  **names = trigger->tg_trigger->tgargs;

	memset(columns, 0, N_ARGS * sizeof(int));
	for (int i = 0; i < trigger->tg_trigger->tgnargs; i++)
	{
		if (i >= MIN_ARGS && names[i][0] == '\0')
			continue;
		columns[i] = SPI_fnumber(desc, names[i]);
		if (columns[i] <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							names[i],
							RelationGetRelationName(trigger->tg_relation)),
					 errdetail("It is argument %d of trigger \"%s\".",
							   i + 1, trigger->tg_trigger->tgname)));
		check_column(desc, i, columns[i]);
	}
	if (columns[ARG_TOKEN] == columns[ARG_REFRESH_TOKEN])
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("trigger \"%s\" must have different columns for token and refresh token",
						trigger->tg_trigger->tgname)));
}

/*
 * A domain can be read like its base type, but writing to it would bypass its
 * constraints.  The server computes generated columns after this trigger, so
 * they can be neither read nor written here.
 */
static void
check_column(TupleDesc desc, int arg, int number)
{
	Form_pg_attribute column = TupleDescAttr(desc, number - 1);
	Oid			type = column->atttypid;
	const char *wanted = NULL;

	if (arg != ARG_TOKEN && arg != ARG_REFRESH_TOKEN)
		type = getBaseType(type);

	switch (arg)
	{
		case ARG_ADDRESSES:
			if (type != UUIDARRAYOID)
				wanted = gettext_noop("The type must be uuid[].");
			break;
		case ARG_TOKEN:
		case ARG_REFRESH_TOKEN:
			if (type != TEXTOID &&
				(type != VARCHAROID || column->atttypmod >= 0))
				wanted = gettext_noop("The type must be text, or character varying without a length.");
			break;
		case ARG_EXPIRE_AT:
			if (type != INT4OID && type != INT8OID && type != TIMESTAMPTZOID)
				wanted = gettext_noop("The type must be integer, bigint or timestamp with time zone.");
			break;
		default:
			if (type != TEXTOID && type != VARCHAROID)
				wanted = gettext_noop("The type must be text or character varying.");
			break;
	}
	if (wanted)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" is of type %s", NameStr(column->attname),
						format_type_with_typemod(column->atttypid,
												 column->atttypmod)),
				 errdetail_internal("%s", _(wanted))));
	if (column->attgenerated)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" is a generated column",
						NameStr(column->attname)),
				 errdetail("Generated columns are computed after the trigger.")));
}

static bool
is_due(const TriggerData *trigger, const int *columns)
{
	if (!TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ||
		heap_attisnull(trigger->tg_newtuple, columns[ARG_TOKEN],
					   RelationGetDescr(trigger->tg_relation)))
		return true;
	for (int i = 0; i < N_ARGS; i++)
	{
		if (i != ARG_TOKEN && i != ARG_REFRESH_TOKEN &&
			columns[i] != 0 &&
			has_changed(trigger, columns[i]))
			return true;
	}
	return false;
}

static bool
has_changed(const TriggerData *trigger, int number)
{
	TupleDesc	desc = RelationGetDescr(trigger->tg_relation);
	Form_pg_attribute column = TupleDescAttr(desc, number - 1);
	bool		old_is_null;
	bool		new_is_null;
	Datum		old_value = heap_getattr(trigger->tg_trigtuple, number, desc,
										 &old_is_null);
	Datum		new_value = heap_getattr(trigger->tg_newtuple, number, desc,
										 &new_is_null);

	if (old_is_null || new_is_null)
		return old_is_null != new_is_null;
	return !datum_image_eq(old_value, new_value, column->attbyval,
						   column->attlen);
}

static void
read_args(HeapTuple row, TupleDesc desc, const int *columns,
		  GuestTokenArgs *args)
{
	int			number = columns[ARG_EXPIRE_AT];
	bool		is_null;
	Datum		value = heap_getattr(row, columns[ARG_ADDRESSES], desc,
									 &is_null);

	if (is_null)
		return;
	args->addresses = DatumGetArrayTypeP(value);
	if (number != 0)
	{
		Form_pg_attribute column = TupleDescAttr(desc, number - 1);

		value = heap_getattr(row, number, desc, &is_null);
		args->has_expire_at = !is_null;
		if (!is_null)
			args->expire_at = read_expire_at(value,
											 getBaseType(column->atttypid),
											 NameStr(column->attname));
	}
	args->region = read_text(row, desc, columns[ARG_REGION]);
	args->ch = read_text(row, desc, columns[ARG_CH]);
}

/*
 * The Unix time that a column holds.
 */
static int64
read_expire_at(Datum value, Oid type, const char *column)
{
	TimestampTz timestamp;

	if (type == INT4OID)
		return DatumGetInt32(value);
	if (type == INT8OID)
		return DatumGetInt64(value);

	timestamp = DatumGetTimestampTz(value);
	if (TIMESTAMP_NOT_FINITE(timestamp))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("value of column \"%s\" must be finite", column)));
	return sgt_unix_time(timestamp);
}

static text *
read_text(HeapTuple row, TupleDesc desc, int number)
{
	bool		is_null;
	Datum		value;

	if (number == 0)
		return NULL;
	value = heap_getattr(row, number, desc, &is_null);
	return is_null ? NULL : DatumGetTextPP(value);
}
