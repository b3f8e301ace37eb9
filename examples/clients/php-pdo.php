<?php
// Guest tokens with PHP's PDO.

// clients.md
const TRY_LATER = ['08001', '08006', '53400', '58000'];

function one_token(PDO $db, array $addresses): array
{
    $statement = $db->prepare(
        'SELECT token, refresh_token FROM sw_create_guest_token(?, expires_in => ?)');
    $statement->execute(['{' . implode(',', $addresses) . '}', '30 min']);
    return $statement->fetch(PDO::FETCH_ASSOC);
}

// One call after the other, unless the role has read_ahead.
function many_tokens(PDO $db, array $guests): array
{
    $statement = $db->prepare(
        'SELECT r.id, t.* FROM jsonb_to_recordset(?) AS r(id int, addresses uuid[]),
           sw_try_create_guest_token(r.addresses) t');
    $statement->execute([json_encode($guests)]);
    return $statement->fetchAll(PDO::FETCH_ASSOC);
}

function token_unless_down(PDO $db, array $addresses): ?array
{
    $statement = $db->prepare(
        'SELECT * FROM sw_try_create_guest_token(?, expires_in => ?)');
    $statement->execute(['{' . implode(',', $addresses) . '}', '30 min']);
    $row = $statement->fetch(PDO::FETCH_ASSOC);
    if (in_array($row['error_code'], TRY_LATER)) {
        return null;
    }
    if ($row['error_code'] !== null) {
        throw new RuntimeException("$row[error_code]: $row[error]");
    }
    return $row;
}

function token_within(PDO $db, array $addresses, int $milliseconds): array
{
    $db->beginTransaction();
    try {
        $db->exec("SET LOCAL statement_timeout = $milliseconds");
        return one_token($db, $addresses);
    } finally {
        $db->rollBack();        // there is nothing to commit
    }
}
// end

const ADDRESS = '3fa85f64-5717-4562-b3fc-2c963f66afa6';

function check(bool $good, string $what): void
{
    if (!$good) {
        fwrite(STDERR, "not so: $what\n");
        exit(1);
    }
}

function check_fails(string $code, string $words, callable $call): void
{
    try {
        $call();
    } catch (PDOException $error) {
        check($error->getCode() === $code && str_contains($error->getMessage(), $words),
            "$code $words: " . $error->getMessage());
        return;
    }
    check(false, "$code $words: it succeeded");
}

function connect(string $user): PDO
{
    return new PDO("pgsql:user=$user");     // since PHP 8, errors are exceptions
}

function execute(PDO $db, string $sql, array $values): array
{
    $statement = $db->prepare($sql);
    $statement->execute($values);
    return $statement->fetch(PDO::FETCH_NUM);
}

echo 'PDO of PHP ', PHP_VERSION, "\n";
$app = connect('app');
check(str_starts_with(one_token($app, [ADDRESS, ADDRESS])['refresh_token'], 'eyJ'), 'one token');

// This API answers only when three requests are there, which takes reading ahead.
$guests = [];
foreach ([1, 2, 3, 4] as $id) {
    $guests[] = ['id' => $id, 'addresses' => $id == 4 ? [] : [ADDRESS]];
}
$rows = array_column(many_tokens(connect('ahead'), $guests), null, 'id');
foreach ([1, 2, 3] as $id) {
    check(str_starts_with($rows[$id]['token'], 'eyJ'), 'many tokens');
}
check(count($rows) == 4 && $rows[4]['error_code'] === '22023', 'and one failure');

check(token_unless_down($app, [ADDRESS]) !== null, 'a token, because all is well');
$down = connect('down');
$down->beginTransaction();
execute($down, 'INSERT INTO visit DEFAULT VALUES RETURNING id', []);
check(token_unless_down($down, [ADDRESS]) === null, 'none in an outage');
$down->commit();
check(execute($down, 'SELECT count(*) FROM visit', [])[0] == 1, 'what was stored outlives it');
check_fails('22023', 'addresses must have 1 to 10 elements', fn () => one_token($app, []));
try {
    token_unless_down($app, []);
    check(false, 'a wrong request is an error');
} catch (PDOException $error) {
    throw $error;
} catch (RuntimeException $error) {
    check($error->getMessage() === '22023: addresses must have 1 to 10 elements', 'which says why');
}
$slow = connect('slow');
$before = execute($slow, 'SHOW statement_timeout', []);
check_fails('57014', 'due to statement timeout', fn () => token_within($slow, [ADDRESS], 200));
check(execute($slow, 'SHOW statement_timeout', []) == $before, 'the limit is gone with the transaction');

$call = 'SELECT * FROM sw_create_guest_token(?, ?)';
check_fails('22003', 'is out of range for type integer',
    fn () => execute($app, $call, ['{' . ADDRESS . '}', 1900000000000]));
check_fails('22P02', 'malformed array literal: "Array"', fn () => @execute($app, $call, [[ADDRESS], null]));
check_fails('22P02', 'malformed array literal: "' . ADDRESS . '"',
    fn () => execute($app, $call, [ADDRESS, null]));
check_fails('42883', 'function sw_create_guest_token(text[]) does not exist',
    fn () => execute($app, 'SELECT * FROM sw_create_guest_token(ARRAY[?])', [ADDRESS]));
check(str_starts_with(execute($app, 'SELECT sw_create_guest_token(?)', ['{' . ADDRESS . '}'])[0], '(eyJ'),
    'text and no columns');

// Whatever is in the statement's text may be logged.
foreach ([false, true] as $emulated) {
    $app->setAttribute(PDO::ATTR_EMULATE_PREPARES, $emulated);
    check(str_contains(execute($app, 'SELECT current_query(), ?::text', ['secret'])[0], 'secret') === $emulated,
        'emulated statements have the values in their text, and others have not');
}
