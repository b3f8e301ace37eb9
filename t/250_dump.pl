# Dump and restore: tables of tokens, grants and settings arrive, no token is issued
# on the way, and no secret ends up where every role could read it.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;
my $sandbox = start_sandbox();
append_to_file("$directory/api_token", 'PTsandbox');
chmod 0600, "$directory/api_token";

my $source = start_server('source');
$source->safe_psql('postgres', <<'EOQ');
CREATE ROLE app LOGIN;
CREATE ROLE "an on";
ALTER ROLE app SET sw_guest_token.timeout = '3s';
CREATE DATABASE shop;
ALTER ROLE app IN DATABASE shop SET sw_guest_token.max_retries = 0;
EOQ
$source->safe_psql('postgres', "ALTER DATABASE shop SET sw_guest_token.$_") foreach (
	"base_url = '$sandbox->{url}'",
	"project_id = '00000000-0000-4000-8000-000000000000'",
	"api_token_file = '$directory/api_token'");
$source->safe_psql('shop', <<"EOQ");
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO "an on";
CREATE EXTENSION sw_guest_token;
GRANT EXECUTE ON FUNCTION sw_create_guest_token TO app;
GRANT EXECUTE ON FUNCTION sw_refresh_guest_token TO "an on" WITH GRANT OPTION;
CREATE TABLE guest (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
GRANT SELECT, INSERT ON guest TO app;
CREATE TRIGGER issue_token BEFORE INSERT OR UPDATE ON guest FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
INSERT INTO guest SELECT i, '{$ADDRESS}' FROM generate_series(1, 2) i;
CREATE TABLE kept (pair sw_guest_token, requests sw_guest_token_request[]);
INSERT INTO kept SELECT t, ARRAY[ROW('{$ADDRESS}', 2000000000, 'us', NULL)::sw_guest_token_request]
	FROM sw_create_guest_token('{$ADDRESS}') t;
EOQ
is($sandbox->attempts, 3, 'three tokens were issued');

my $tokens = 'SELECT g FROM guest g ORDER BY id; SELECT k FROM kept k';
my $rows = $source->safe_psql('shop', $tokens);
my $grants = <<'EOQ';
SELECT p.oid::regprocedure, a.grantee::regrole, a.privilege_type, a.is_grantable
FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE p.proname LIKE 'sw\_%' AND p.proname <> 'sw_token_header' AND a.grantee <> p.proowner ORDER BY 1, 2
EOQ
my $granted = $source->safe_psql('shop', $grants);
like($granted, qr/\(uuid\[\],integer,text,text,interval\)\|app\|EXECUTE/, 'the role has its grant');
like($granted, qr/^sw_refresh_guest_token\(text\)\|"an on"\|EXECUTE\|t$/m, 'a grant to one that had it by default is a grant');
is(() = $granted =~ /pg_read_all_stats\|EXECUTE\|f$/mg, 2, 'so have those who may read statistics');
is(() = $granted =~ /\n/g, 3, 'and default privileges have granted nothing else');

$source->command_ok([ 'pg_dumpall', '--globals-only', '-f', "$directory/globals" ], 'dump of the roles');
$source->command_ok([ 'pg_dump', '-Fc', '--create', '-f', "$directory/shop", 'shop' ], 'dump of the database');

# What the application sees in a session of its own
sub as_app
{
	my ($node, $sql) = @_;

	my ($rc, $out, $err) = $node->psql('shop', $sql, extra_params => [ '-U', 'app' ]);
	return "$out\n$err";
}

foreach my $library ('sw_guest_token', '')
{
	my $name = $library ? 'preloaded' : 'not preloaded';
	my $target = start_server($library ? 'preloaded' : 'bare', "shared_preload_libraries = '$library'");

	$sandbox->reset;
	$target->safe_psql('postgres', 'DROP EXTENSION sw_guest_token');
	$target->command_ok([ 'psql', '-XqAt', '-f', "$directory/globals", 'postgres' ], "$name: restore of the roles");
	$target->command_ok([ 'pg_restore', '--create', '-d', 'postgres', "$directory/shop" ],
		"$name: restore of the database");
	is($sandbox->attempts, 0, "$name: no token is issued by that");
	is($target->safe_psql('shop', $tokens), $rows, "$name: the rows are there");
	is($target->safe_psql('shop', $grants), $granted, "$name: and the grants");

	my $shown = as_app($target, <<"EOQ");
INSERT INTO guest VALUES (3, '{$ADDRESS}') RETURNING token IS NOT NULL;
SHOW sw_guest_token.timeout;
SHOW sw_guest_token.max_retries;
SHOW sw_guest_token.api_token_file;
EOQ
	like($shown, qr/^t\n3s\n0\n/, "$name: the trigger works, with the settings of role and database");
	like($shown, qr/must be superuser|permission denied/, "$name: of which the role sees those that are its to see");
	is($sandbox->attempts, 1, "$name: with one request");

	# rows alone, into tables that have their triggers
	$sandbox->reset;
	$target->safe_psql('shop', 'TRUNCATE guest');
	$target->command_ok([ 'pg_restore', '--data-only', '--disable-triggers', '-t', 'guest', '-d', 'shop', "$directory/shop" ],
		"$name: restore of the rows");
	is($sandbox->attempts, 0, "$name: --disable-triggers keeps it from issuing tokens");
	is($target->safe_psql('shop', $tokens), $rows, "$name: the rows are the same");
	$target->stop;
}

# A session without the library can store a secret.  The dump contains it, but a
# server that preloads the library refuses it.
$source->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$source->restart;
$source->safe_psql('postgres', "ALTER DATABASE shop SET sw_guest_token.api_token = 'PTstored'");
$source->command_ok([ 'pg_dump', '--create', '-f', "$directory/secret", 'shop' ], 'dump of a secret');
like(slurp_file("$directory/secret"), qr/PTstored/, 'the dump has it');
my $target = start_server('target');
$target->safe_psql('postgres', 'CREATE ROLE app; CREATE ROLE "an on"');
$target->command_checks_all([ 'psql', '-Xq', '-f', "$directory/secret", 'postgres' ],
	0, [], [qr/ERROR:  parameter "sw_guest_token\.api_token" cannot be set/], 'the restore says that it is refused');
is( $target->safe_psql('postgres', "SELECT count(*) FROM pg_db_role_setting s WHERE s::text ~ 'PTstored'"),
	'0', 'and nobody can read it in the catalogs');
is($target->safe_psql('shop', $tokens), $rows, 'the rest is restored');

done_testing();
