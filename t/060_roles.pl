# What an ordinary role can find out and manipulate, on servers that preload the
# library and on those that do not.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $secrets = <<'EOC';
sw_guest_token.api_token = 'PTsecret'
sw_guest_token.proxy = 'http://user:hunter2@127.0.0.1:1'
EOC
my $node = start_server('roles', $secrets);
$node->safe_psql('postgres', <<'EOQ');
CREATE ROLE ordinary LOGIN;
CREATE ROLE definer SUPERUSER;
CREATE ROLE reader LOGIN IN ROLE pg_read_all_settings;
GRANT EXECUTE ON FUNCTION sw_create_guest_token TO ordinary;
EOQ

# Runs statements as an ordinary role.
sub ordinary
{
	my $session = run_session($node, 'SET SESSION AUTHORIZATION ordinary', @_);

	unlike($session->{out} . $session->{err}, qr/PTsecret|hunter2/, 'no secret is shown');
	return $session;
}

my @looks = (
	'SHOW sw_guest_token.api_token',
	'SHOW sw_guest_token.proxy',
	'SHOW ALL',
	"SELECT current_setting('sw_guest_token.api_token', true)",
	"SELECT current_setting('sw_guest_token.proxy', true)",
	"SELECT * FROM pg_settings WHERE name ~ 'sw_guest'",
	"SELECT * FROM pg_file_settings",
	"SELECT * FROM pg_show_all_settings() s WHERE s::text ~ 'sw_guest'");

# with preloading, an ordinary role never sees a secret
my $session = ordinary(@looks, $ONE, @looks);
like(sql_state($session->{err}), qr/^42501 42501 42501 42501 /,
	'an ordinary role that asks for a secret is refused, before the first call');
is($session->{err} =~ /WARNING/, '', 'a server that preloads the library does not warn');
is(run_session($node, 'SET SESSION AUTHORIZATION reader', 'SHOW sw_guest_token.api_token')->{out},
	"PTsecret\n", 'pg_read_all_settings may see');

# nor can a function that runs as somebody else be made to reveal it
$node->safe_psql('postgres', <<'EOQ');
CREATE FUNCTION issue() RETURNS sw_guest_token LANGUAGE sql SECURITY DEFINER
	SET search_path = public, pg_temp
	AS $$ SELECT * FROM sw_create_guest_token('{11111111-1111-1111-1111-111111111111}') $$;
ALTER FUNCTION issue() OWNER TO definer;
EOQ
my $sandbox = start_sandbox();
$session = ordinary(
	"SET sw_guest_token.base_url = '$sandbox->{url}'",
	"SET SESSION sw_guest_token.proxy = ''",
	"SELECT set_config('sw_guest_token.base_url', '$sandbox->{url}', false)",
	"SET LOCAL sw_guest_token.space_name = 'elsewhere'",
	"ALTER ROLE ordinary SET sw_guest_token.base_url = '$sandbox->{url}'",
	"CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE sql SET sw_guest_token.base_url = '$sandbox->{url}' AS ''",
	'SELECT issue()');
is(sql_state($session->{err}), '42501 42501 42501 42501 42501 42501 55000',
	'an ordinary role cannot point the credentials elsewhere');
is($sandbox->attempts, 0, 'and nothing was sent');

# secrets that a session without the library has put into the catalogs
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
$node->safe_psql('postgres', <<'EOQ');
ALTER ROLE ordinary SET sw_guest_token.api_token = 'PTstored';
ALTER DATABASE postgres SET sw_guest_token.proxy = 'http://user:stored@127.0.0.1:1';
ALTER ROLE ordinary IN DATABASE postgres SET sw_guest_token.project_id = 'mine';
ALTER ROLE ALL SET sw_guest_token.api_token = 'PTstored';
EOQ
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'sw_guest_token'");
$node->restart;
my ($rc, $out, $err) = $node->psql('postgres', 'SHOW sw_guest_token.api_token; SHOW sw_guest_token.proxy');
is($out, "PTsecret\nhttp://user:hunter2\@127.0.0.1:1", 'a secret that comes out of the catalogs is not used');
like($err, qr/WARNING: .*sw_guest_token\.proxy" with a password cannot be set/, 'and the session is warned');
unlike($err, qr/stored/, 'without a word of it');
$node->safe_psql('postgres', 'ALTER ROLE ordinary RESET ALL; ALTER ROLE ALL RESET ALL; ALTER DATABASE postgres RESET ALL; ALTER ROLE ordinary IN DATABASE postgres RESET ALL');

# without preloading, the secret is a placeholder, which PostgreSQL shows to every
# role until the library is loaded; the library can only warn
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
$session = run_session($node, 'SET SESSION AUTHORIZATION ordinary', $ONE, 'SHOW sw_guest_token.api_token', $ONE);
is(() = $session->{err} =~ /WARNING:  55000: a secret of "sw_guest_token" was readable/g,
	1, 'a session that has not preloaded the library warns, once');
like($session->{err}, qr/HINT:  Add "sw_guest_token" to "shared_preload_libraries"\./, 'and says what to do');
unlike($session->{err} . $session->{out}, qr/PTsecret|hunter2/, 'without the secret, which is hidden from then on');

# a session whose first call is cancelled as it loads the library stays usable
my @broken = grep {
	run_session($node, "SET statement_timeout = '${_}ms'", q{SELECT sw_token_header('eyJhbGciOiJkaXIifQ.')},
		'SET statement_timeout = 0', q{SELECT sw_token_header('eyJhbGciOiJkaXIifQ.')})->{out} !~ /dir/
} 1 .. 10;
is("@broken", '', 'a time limit that runs out as the library is loaded');

# parallel workers load the library, too, but warn nobody
$session = run_session($node, $ONE,
	'SET force_parallel_mode = on', 'SET debug_parallel_query = on',
	q{SELECT sw_token_header('eyJhbGciOiJkaXIifQ.')});
is(() = $session->{err} =~ /WARNING:  55000/g, 1, 'parallel workers do not warn');

# what an ordinary role set before the library was loaded does not count
$node->append_conf('postgresql.conf', "sw_guest_token.api_token = ''\nsw_guest_token.proxy = ''");
$node->restart;
$session = run_session($node, 'SET SESSION AUTHORIZATION ordinary',
	"SET sw_guest_token.base_url = '$sandbox->{url}'",
	"SET sw_guest_token.project_id = 'mine'",
	"SET sw_guest_token.api_token = 'PTmine'",
	"SET sw_guest_token.timeout = '7s'",
	"SET sw_guest_token.no_such_setting = 'x'",
	$ONE,
	'SHOW sw_guest_token.base_url', 'SHOW sw_guest_token.timeout',
	'SHOW sw_guest_token.no_such_setting');
is($session->{out}, "\n7s\n", 'what an ordinary role has set before the library came does not count');
like(sql_state($session->{err}), qr/55000 42704$/, 'nor do names that do not exist');
is($sandbox->attempts, 0, 'and nothing was sent');

# no secret set: no warning
$session = run_session($node, $ONE);
unlike($session->{err}, qr/WARNING/, 'without a secret there is nothing to warn of');

# nor can an ordinary role get rid of what a superuser has set
$node->safe_psql('postgres', "ALTER ROLE ordinary LOGIN; ALTER ROLE ordinary SET sw_guest_token.project_id = 'its own'; "
	. 'GRANT EXECUTE ON FUNCTION sw_create_guest_token, sw_guest_token_check TO ordinary');
sub connect_with
{
	my ($option, $user, @statements) = @_;
	local %ENV = (%ENV, PGOPTIONS => "-c $option", $user ? (PGUSER => $user) : ());
	return run_session($node, @statements)->{err};
}
my @options = ('base_url=', 'project_id=x', 'tokens_per_minute=0');
foreach my $libraries ('', 'sw_guest_token')
{
	$node->append_conf('postgresql.conf', "session_preload_libraries = '$libraries'");
	$node->restart;
	like(connect_with("sw_guest_token.$_", 'ordinary', $ONE),
		qr/WARNING: .*ERROR:  55000: parameter "sw_guest_token\.@{[ s{=.*}{}r ]}" cannot be used\nDETAIL:  The value that it had before the library was loaded was not accepted\./s,
		"an option of the connection cannot undo a superuser's setting: $_") foreach @options;
	unlike(connect_with('sw_guest_token.timeout=5s', 'ordinary', $ONE), qr/WARNING|not accepted/, 'other options are accepted');
	unlike(connect_with('sw_guest_token.base_url=x', '', $ONE), qr/WARNING|not accepted/, "and so are a superuser's");
}

# not even if a function that has a value of its own loads the library
$node->append_conf('postgresql.conf', "session_preload_libraries = ''");
$node->restart;
$node->safe_psql('postgres', 'CREATE FUNCTION load_it() RETURNS bool LANGUAGE sql SECURITY DEFINER '
	. "SET sw_guest_token.base_url = 'y' AS 'SELECT bool_and(ok) FROM sw_guest_token_check()'");
like(connect_with('sw_guest_token.base_url=x', 'ordinary', 'SELECT load_it()', $ONE),
	qr/base_url" cannot be used\nDETAIL:  The value that it had before/, "nor does a superuser's function help");

# nor does a parallel worker
$node->safe_psql('postgres', <<"EOS");
GRANT CREATE ON SCHEMA public TO ordinary;
CREATE TABLE few AS SELECT i FROM generate_series(1, 9) i;
GRANT SELECT ON few TO ordinary;
ALTER TABLE few SET (parallel_workers = 2);
EOS
like(connect_with('sw_guest_token.base_url=x', 'ordinary',
		"CREATE FUNCTION in_worker(int) RETURNS bool LANGUAGE plpgsql PARALLEL SAFE AS 'BEGIN RETURN (SELECT token <> \$\$\$\$ FROM sw_create_guest_token(\$\${$ADDRESS}\$\$)); END'",
		'SET parallel_setup_cost = 0', 'SET parallel_tuple_cost = 0', 'SET min_parallel_table_scan_size = 0',
		'SET parallel_leader_participation = off', 'SELECT in_worker(i) FROM few'),
	qr/ERROR:  55000: parallel workers cannot request guest tokens\n.*HINT:  Add "sw_guest_token"/s, 'nor does a parallel worker');

# session_preload_libraries loads it before the first statement
$node->append_conf('postgresql.conf', "session_preload_libraries = 'sw_guest_token'");
$node->restart;
$session = run_session($node, 'SET SESSION AUTHORIZATION ordinary',
	"SET sw_guest_token.base_url = '$sandbox->{url}'");
is(sql_state($session->{err}), '42501', 'session_preload_libraries leaves no time for placeholders');

done_testing();
