# Every recipe of docs/recipes.md, run exactly as it is printed there, does
# what it says: its SQL raises no error, its output is as shown, and its promises
# hold under concurrency, failures and crashes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;
use Time::HiRes 'time';

# The one address of the recipes that the API does not accept
my $FOREIGN = 'ffffffff-ffff-4fff-8fff-ffffffffffff';

my @sections = read_recipes("$FindBin::RealBin/../docs/recipes.md");
my $node = start_server('recipes', "sw_guest_token.timeout = '1h'");
my $sandbox = start_sandbox('--foreign-address', $FOREIGN);
use_sandbox($node, $sandbox);

# Over a connection that is kept alive, Nagle's algorithm makes each of the
# thousand tokens below wait 40 ms to be decrypted.
$sandbox->{http} = HTTP::Tiny->new(timeout => 300, keep_alive => 0);

# pg_cron is optional: without it, workers are started by hand only
my $has_cron = query("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'");
if ($has_cron)
{
	my @configuration = blocks_of('4.', 'ini');

	is(scalar @configuration, 1, 'recipe 4 shows how pg_cron is configured');
	$node->append_conf('postgresql.conf', $configuration[0]);
	$node->restart;
}

# The SQL of the document, in the order in which it is run
run_block($_) foreach blocks_of('Recipes', 'sql');
test_sign_up(blocks_of('1.', 'sql'));
test_privileges(blocks_of('2.', 'sql'));
test_bulk_load(blocks_of('3.', 'sql'));
my @schedules = (
	test_queue(blocks_of('4.', 'sql')),
	test_refresh(blocks_of('5.', 'sql')));
test_crash();
test_schedules(@schedules);
test_errors(blocks_of('6.', 'sql'));
test_spaces(blocks_of('8.', 'sql'));
done_testing();

#
# The recipes
#

sub test_sign_up
{
	my ($create, $insert, $prolong, @rest) = @_;

	is(scalar @rest, 0, 'recipe 1 has three blocks');
	run_block($_) foreach $create, $insert;
	is_token('SELECT token FROM visitor', '11111111-1111-4111-8111-111111111111',
		'recipe 1: the row has a token for its address');
	my $before = query('SELECT token FROM visitor');
	run_block($prolong);
	isnt(query('SELECT token FROM visitor'), $before, 'recipe 1: an UPDATE that prolongs issues a new token');
	is( $sandbox->decrypt(query('SELECT token FROM visitor'))->{claims}{exp},
		query('SELECT floor(extract(epoch FROM expires_at)) FROM visitor'),
		'recipe 1: the token expires when the row says so');

	my $session = as_role('web', 'SELECT refresh_token FROM visitor', $ONE);
	is(sql_state($session->{err}), '42501 42501',
		'recipe 1: the application can neither read refresh tokens nor call the extension');

	$sandbox->reset;
	$session = run_session($node, use_script('500'), 'SET sw_guest_token.max_retries = 0',
		"INSERT INTO visitor (name, addresses) VALUES ('Bob', '{$ADDRESS}')");
	is(sql_state($session->{err}), '58000', 'recipe 1: the row fails with the API');

	# what a subscriber of logical replication does
	$sandbox->reset;
	query("SET session_replication_role = replica;
		INSERT INTO visitor (name, addresses) VALUES ('Eve', '{$ADDRESS}')");
	is($sandbox->attempts, 0, 'recipe 1: a row that is replicated issues no token');
	return;
}

sub test_privileges
{
	my ($create, $own, $foreign, $create_api, $call_api, @rest) = @_;

	is(scalar @rest, 0, 'recipe 2 has five blocks');
	$sandbox->reset;
	run_block($_) foreach $create, $own, $foreign;
	is_deeply([ requested() ], ['11111111-1111-4111-8111-111111111111'],
		"recipe 2: only the role's own address was sent");

	my $session = as_role('web',
		'SELECT * FROM room',
		'SELECT * FROM room_token(3)',
		# a look-alike table, and an operator that would open all rooms
		'CREATE TEMP TABLE room (id bigint, owner name, address uuid)',
		q{INSERT INTO room VALUES (2, 'web', '22222222-2222-4222-8222-222222222222')},
		'CREATE FUNCTION pg_temp.always(name, name) RETURNS boolean LANGUAGE sql AS $$ SELECT true $$',
		'CREATE OPERATOR pg_temp.= (LEFTARG = name, RIGHTARG = name, FUNCTION = pg_temp.always)',
		'SET search_path = pg_temp, pg_catalog, public',
		'SELECT * FROM room_token(2)',
		'SET ROLE token_issuer');
	is(sql_state($session->{err}), '42501 P0002 P0002 42501',
		'recipe 2: a role can neither read the table, nor get a token for a foreign room, nor trick the function');
	$session = as_role('token_worker', 'SELECT * FROM room_token(1)');
	is(sql_state($session->{err}), '42501', 'recipe 2: PUBLIC cannot call the function');
	is($sandbox->attempts, 1, 'recipe 2: and nothing else was sent');

	my ($expires, $token) = split /\|/,
	  as_role('web', 'SELECT extract(epoch FROM expires_at)::int, token FROM room_token(1)')->{out};
	is($sandbox->decrypt($token =~ s/\n//r)->{claims}{exp}, $expires, 'recipe 2: the token expires when the function says so');

	# what an API layer does for a client
	my $claim = sub {
		my ($claims, $room) = @_;
		return run_session($node, 'SET ROLE web_client', defined $claims ? qq{SET "request.jwt.claims" = '$claims'} : (),
			"SELECT 'token ' || (token IS NOT NULL) FROM api.room_token($room)");
	};
	$sandbox->reset;
	run_block($_) foreach $create_api, $call_api;
	is_deeply([ requested() ], ['33333333-3333-4333-8333-333333333333'], "recipe 2: only the client's own address was sent");
	is($claim->('{"sub": "ada"}', 3)->{out}, "token true\n", 'recipe 2: a client gets a token for a room of its own');
	is(sql_state(join '', map { $_->{err} } $claim->('{"sub": "ada"}', 1), $claim->('{"role": "web_client"}', 3), $claim->('', 3), $claim->(undef, 3)),
		'P0002 P0002 P0002 P0002', 'recipe 2: and none for a foreign room, or without a claim');
	$session = run_session($node, 'SET ROLE web_client', 'SELECT * FROM room_token(1)', 'SELECT * FROM room', $ONE);
	is(sql_state($session->{err}), '42501 42501 42501', 'recipe 2: nor can it do anything else');
	$session = as_role('web', 'SELECT * FROM api.room_token(3)');
	is(sql_state($session->{err}), '42501', 'recipe 2: PUBLIC cannot call that function, either');
	is($sandbox->attempts, 2, 'recipe 2: and nothing else was sent');
	return;
}

sub test_bulk_load
{
	my ($create, $load, @rest) = @_;
	my $start;

	is(scalar @rest, 0, 'recipe 3 has two blocks');
	run_block($create);

	$sandbox->reset;
	$sandbox->control('POST', 'latency', { ms => 50 });
	$start = time;
	run_block($load);
	note(sprintf 'recipe 3: 1000 rows in one batch: %.1f s', time - $start);
	is($sandbox->journal->{max_in_flight}, 16, 'recipe 3: 16 requests are in flight at a time');
	is($sandbox->attempts, 1000, 'recipe 3: each row was asked for once');
	are_tokens('SELECT a.addresses[1], t.token FROM attendee a JOIN attendee_token t ON t.attendee_id = a.id',
		1000, 'recipe 3: each row has a token for its own address');

	# one by one, for comparison; a tenth of the rows is enough
	$start = time;
	query(q{INSERT INTO visitor (name, addresses)
		SELECT i, ARRAY[gen_random_uuid()] FROM generate_series(1, 100) i});
	note(sprintf 'recipe 1: 100 rows one by one: %.1f s', time - $start);
	$sandbox->control('POST', 'latency', { ms => 0 });

	query(qq{INSERT INTO attendee (email, addresses) VALUES
		('good', '{$ADDRESS}'), ('bad', '{$FOREIGN}'), ('ugly', '{NULL}')});
	is( query(q{SELECT email, token IS NOT NULL, error_code FROM attendee JOIN attendee_token ON attendee_id = id
			WHERE email IN ('good', 'bad', 'ugly') ORDER BY id}),
		"good|t|\nbad|f|22023\nugly|f|22004",
		'recipe 3: a row that fails is recorded and the others keep their tokens');

	$sandbox->reset;
	query("INSERT INTO attendee (email, addresses) SELECT 'nobody', NULL WHERE false");
	is($sandbox->attempts, 0, 'recipe 3: a statement without rows asks for nothing');
	my $session = as_role('web', 'SELECT * FROM attendee_token',
		"CREATE TEMP TABLE mine (id bigint, addresses uuid[])",
		'CREATE TRIGGER t AFTER INSERT ON mine REFERENCING NEW TABLE AS inserted
			FOR EACH STATEMENT EXECUTE FUNCTION issue_attendee_tokens()');
	is(sql_state($session->{err}), '42501 42501',
		'recipe 3: the application can neither read the tokens nor use the trigger for a table of its own');
	return;
}

# Returns the block that schedules it.
sub test_queue
{
	my ($create, $request, $issue, $mend, $retry, $schedule, @rest) = @_;

	is(scalar @rest, 0, 'recipe 4 has six blocks');
	$sandbox->reset;
	run_block($_) foreach $create, $request, $issue;
	run_worker();
	is($sandbox->attempts, 2, 'recipe 4: a request that is wrong is not tried again');
	run_block($mend);
	run_worker();
	is($sandbox->attempts, 3, 'recipe 4: until it is fixed');
	is_token('SELECT token FROM token_request WHERE customer_id = 2', '22222222-2222-4222-8222-222222222222',
		'recipe 4: then it has a token for its address');

	query("BEGIN; INSERT INTO customer OVERRIDING SYSTEM VALUE VALUES (0, 'nobody');
		INSERT INTO token_request (customer_id, addresses) VALUES (0, '{$ADDRESS}'); ROLLBACK");
	run_worker();
	is($sandbox->attempts, 3, 'recipe 4: a transaction that rolls back leaves no request');

	# The sandbox answers nobody before all four workers have sent all ten requests.
	$sandbox->reset;
	request_tokens(40);
	my @workers = map { start_worker('CALL issue_tokens(10)', use_script('hold,n=40')) } 1 .. 4;
	$sandbox->journal(40);
	my $while = run_session($node, use_script('hold,n=40'), 'SET ROLE token_worker', 'CALL issue_tokens(10)',
		'RESET ROLE', 'SELECT count(*) FROM token_request WHERE next_try <= now()');
	$_->finish foreach @workers;
	is(join('', map { $_->{err} } $while, @workers), '', 'recipe 4: workers do not wait for one another');
	is($sandbox->journal->{max_in_flight}, 40, 'recipe 4: four workers at once have each a batch in flight');
	my %addresses = map { $_ => 1 } requested();
	is(scalar(keys %addresses) . ' of ' . requested(), '40 of 40', 'recipe 4: and issue no row twice');
	are_tokens('SELECT addresses[1], token FROM token_request WHERE customer_id > 2 AND attempts = 1 AND next_try IS NULL',
		40, 'recipe 4: each row has a token for its own address');

	# temporary failures
	$sandbox->reset;
	request_tokens(3);
	my $open = 'token_request WHERE token IS NULL';
	my $oldest = query("SELECT min(customer_id) FROM $open");
	query("UPDATE token_request SET attempts = 5 WHERE customer_id = $oldest");
	start_worker('CALL issue_tokens()', 'SET sw_guest_token.max_retries = 0', use_script('503'))->finish;
	is( query("SELECT customer_id - $oldest, error_code, error IS NOT NULL, attempts > CASE WHEN customer_id = $oldest THEN 5 ELSE 0 END
			FROM $open AND next_try IS NOT NULL ORDER BY customer_id"),
		"0|58000|t|t\n1|58000|t|t\n2|58000|t|t",
		'recipe 4: a failure that may pass is recorded and remains open');
	is(query("SELECT (array_agg(customer_id ORDER BY next_try DESC))[1] - $oldest FROM $open"), '0',
		'recipe 4: what has failed more often waits longer');
	run_block($retry);
	start_worker('CALL issue_tokens()', use_script('401'))->finish;
	is(query("SELECT DISTINCT error_code, next_try IS NOT NULL FROM $open"), '28000|t',
		'recipe 4: a request does not fail for good because of wrong credentials');
	run_block($retry);
	run_worker();
	is(query("SELECT count(*) FROM $open"), '0', 'recipe 4: once the API is back, all of them are issued');
	are_tokens("SELECT addresses[1], token FROM token_request WHERE customer_id >= $oldest AND error_code IS NULL AND error IS NULL",
		3, 'recipe 4: with tokens for their own addresses, and the error is gone');

	my $session = as_role('token_worker', 'SELECT token FROM token_request', $ONE);
	is(sql_state($session->{err}), '42501 42501', 'recipe 4: the worker can neither read tokens nor call the extension');
	$session = as_role('web', 'CALL issue_tokens()', 'SELECT issue_token_batch(1)', 'SELECT refresh_token FROM token_request',
		'UPDATE token_request SET attempts = 0');
	is(sql_state($session->{err}), '42501 42501 42501 42501', 'recipe 4: the application can only ask');
	$session = run_session($node, 'BEGIN', 'UPDATE token_request SET next_try = now() WHERE customer_id = 1', 'CALL issue_tokens()');
	is(sql_state($session->{err}), '2D000', 'recipe 4: in a transaction block the procedure fails');
	return $schedule;
}

# The server is killed in the middle of a worker's second batch.
sub test_crash
{
	my $open = 'token_request WHERE token IS NULL';

	$sandbox->reset;
	request_tokens(25);
	my $last = query('SELECT max(customer_id) FROM token_request');
	my $worker = start_worker('CALL issue_tokens(10)', use_script(join '-then-', ('201') x 10, 'hang'));
	$sandbox->journal(20);
	$node->stop('immediate');
	$worker->finish;
	$node->start;
	is(query("SELECT count(*), sum(attempts), count(error_code) FROM $open"), '15|0|0',
		'recipe 4: after a crash in the second batch the first is kept, and all others are open as before');
	is(query("SELECT count(*) FROM (SELECT FROM $open FOR UPDATE SKIP LOCKED) s"), '15',
		'recipe 4: and no row is stuck');
	$sandbox->reset;
	return;
}

# Returns the block that schedules it.
sub test_refresh
{
	my ($create, $begin, $schedule, @rest) = @_;
	my $due = 'UPDATE call_session SET next_try = now()';

	is(scalar @rest, 0, 'recipe 5 has three blocks');
	run_block($_) foreach $create, $begin, $begin, $begin;
	$sandbox->reset;
	start_worker('CALL refresh_tokens()')->finish;
	is($sandbox->attempts, 0, 'recipe 5: a fresh token is not refreshed');

	# one row is due, one is too late, and one is fresh
	my $expired = $sandbox->control('POST', 'encrypt',
		{ header => { typ => 'Refresh' }, claims => { exp => 1 } })->{token};
	my @before = split /\n/, query('SELECT token FROM call_session ORDER BY id');
	query("$due WHERE id <= 2; UPDATE call_session SET refresh_token = '$expired' WHERE id = 2");
	my $worker = start_worker('CALL refresh_tokens()')->finish;
	is($worker->{err}, '', 'recipe 5: a refresh that fails does not end the procedure');
	my @after = split /\n/, query('SELECT token FROM call_session ORDER BY id');
	isnt($after[0], $before[0], 'recipe 5: a token that is due is refreshed');
	is_token('SELECT token FROM call_session WHERE id = 1', '11111111-1111-4111-8111-111111111111',
		'recipe 5: the new one is for the same address');
	is("$after[1] $after[2]", "$before[1] $before[2]", 'recipe 5: others stay as they are');
	is( query('SELECT id, attempts, error_code, error IS NULL, next_try > now() FROM call_session ORDER BY id'),
		"1|0||t|t\n2|1|22023|f|\n3|0||t|t",
		'recipe 5: a refresh token that has expired is given up');
	is($sandbox->attempts, 2, 'recipe 5: each was tried once');

	# any role can have plans printed, with the values of PL/pgSQL's variables
	query("$due WHERE id = 1");
	$worker = start_worker('SET debug_print_plan = on; SET client_min_messages = log; CALL refresh_tokens()')->finish;
	like($worker->{err}, qr/constvalue \d+ \[/, 'recipe 5: the values in a plan are printed');
	unlike($worker->{err}, qr/constvalue \d+ \[ [-0-9 ]*\b101 121 74 /, 'recipe 5: but no token is one of them');

	# a temporary failure
	query("$due WHERE id = 1");
	start_worker('CALL refresh_tokens()', 'SET sw_guest_token.max_retries = 0', use_script('500'))->finish;
	is(query('SELECT attempts > 0, error_code, next_try IS NOT NULL FROM call_session WHERE id = 1'),
		't|58000|t', 'recipe 5: a failure that may pass is recorded and remains open');

	# two workers at once, neither of which is answered before both have asked
	$sandbox->reset;
	query("$due WHERE id IN (1, 3)");
	my @workers = map { start_worker('CALL refresh_tokens()', use_script('hold')) } 1 .. 2;
	$_->finish foreach @workers;
	is(join('', map { $_->{err} } @workers) . $sandbox->attempts, '2',
		'recipe 5: two workers at once refresh different rows, and none twice');
	is(query('SELECT count(*) FROM call_session WHERE attempts = 0 AND error_code IS NULL'),
		'2', 'recipe 5: and the error is gone');

	# a cancel
	query("$due WHERE id = 1");
	$worker = start_worker('CALL refresh_tokens()', "SET statement_timeout = '100ms'", use_script('hang'))->finish;
	is(sql_state($worker->{err}), '57014', 'recipe 5: a cancel ends the procedure');
	is(query('SELECT next_try <= now(), attempts, error_code FROM call_session WHERE id = 1'),
		't|0|', 'recipe 5: and leaves the row due');

	my $session = as_role('web', 'SELECT refresh_token FROM call_session', 'CALL refresh_tokens()');
	is(sql_state($session->{err}), '42501 42501', 'recipe 5: the application can neither read refresh tokens nor refresh');
	return $schedule;
}

# The requests that the crash left open are issued, and tokens that are due are
# refreshed: by pg_cron, or else by hand.
sub test_schedules
{
	my @blocks = @_;
	my $open = 'SELECT count(*) = 0 FROM token_request WHERE token IS NULL';
	my $due = 'SELECT count(*) = 0 FROM call_session WHERE next_try <= now()';

  SKIP:
	{
		skip 'PostgreSQL has no pg_cron here (Debian: postgresql-N-cron)', 7 unless $has_cron;
		run_block($_) foreach @blocks;
		is( query('SELECT jobname, username, command FROM cron.job ORDER BY jobname'),
			"issue tokens|token_worker|CALL public.issue_tokens()\nrefresh tokens|token_worker|CALL public.refresh_tokens()",
			'recipe 4: the jobs run as the worker');
		ok($node->poll_query_until('postgres', $open), 'recipe 4: pg_cron issues what is open after a crash');
		ok($node->poll_query_until('postgres', $due), 'recipe 5: pg_cron refreshes what is due');
		ok( $node->poll_query_until('postgres',
				q{SELECT count(DISTINCT jobid) = 2 FROM cron.job_run_details WHERE status = 'succeeded'}),
			'recipe 4: both jobs have succeeded');
		query('SELECT cron.unschedule(jobid) FROM cron.job');
		ok( $node->poll_query_until('postgres',
				q{SELECT count(*) = 0 FROM cron.job_run_details WHERE status NOT IN ('succeeded', 'failed')}),
			'recipe 4: and none is running any more');
	}
	unless ($has_cron)
	{
		start_worker('CALL issue_tokens()')->finish;
		start_worker('CALL refresh_tokens()')->finish;
	}
	is(query($open) . query($due), 'tt', 'recipe 4: in the end nothing is open');
	my @requests = requested();
	my %addresses = map { $_ => 1 } @requests;
	is(scalar(keys %addresses) . ' of ' . @requests, '15 of 15', 'recipe 4: what the crash has left open is issued once');
	are_tokens('SELECT addresses[1], token FROM token_request ORDER BY customer_id DESC LIMIT 25',
		25, 'recipe 4: and each row has a token for its own address');
	return;
}

sub test_errors
{
	my ($create, $try, @rest) = @_;
	my $call = "SELECT verdict, token FROM try_guest_token('{$ADDRESS}')";
	my %expected = (
		'08006' => [ 'retry', use_script('close') ],
		'08001' => [ 'retry', "SET sw_guest_token.base_url = 'http://127.0.0.1:1'" ],
		'53400' => [ 'retry', use_script('429') ],
		'58000' => [ 'retry', use_script('503') ],
		'22023' => [ 'refused', use_script('422') ],
		'28000' => [ 'broken', use_script('401') ],
		'42501' => [ 'broken', use_script('403') ],
		'42704' => [ 'broken', use_script('404') ],
		'08P01' => [ 'broken', use_script('garbage') ],
		'55000' => [ 'broken', "SET sw_guest_token.project_id = ''" ]);

	is(scalar @rest, 0, 'recipe 6 has two blocks');
	run_block($_) foreach $create, $try;
	foreach my $state (sort keys %expected)
	{
		my ($verdict, $set) = @{ $expected{$state} };
		my $log = -s $node->logfile;
		my $session = run_session($node, 'SET sw_guest_token.max_retries = 0', $set, $call, $ONE);

		is(sql_state($session->{err}), $state, "recipe 6: $state is raised");
		is($session->{out}, "$verdict|\n", "recipe 6: and the verdict is \"$verdict\"");
		is(() = substr(slurp_file($node->logfile), $log) =~ /LOG:  guest token: \S/g,
			$verdict eq 'broken' ? 1 : 0,
			'recipe 6: the server\'s log ' . ($verdict eq 'broken' ? 'tells whom to page' : 'is silent'));
	}
	is(run_session($node, 'SELECT verdict, message FROM try_guest_token(NULL)')->{out},
		"refused|addresses must not be null\n", 'recipe 6: whoever asks wrongly is told');
	my $session = run_session($node, use_script('hang'), "SET statement_timeout = '100ms'", $call);
	is($session->{out} . sql_state($session->{err}), '57014', 'recipe 6: a cancel goes through');

	# the document's table lists them all
	my $document = slurp_file("$FindBin::RealBin/../docs/recipes.md");
	foreach my $state (sort(keys %expected, '22004', '22021', '57014'))
	{
		my ($condition) = $document =~ /^\| `$state` \| `(\w+)` \|/m;
		my ($rc, $out, $err) = $node->psql('postgres',
			"DO \$\$ BEGIN RAISE SQLSTATE '$state'; EXCEPTION WHEN @{[$condition // 'missing']} THEN NULL; END \$\$");
		is("$rc $err", '0 ', "recipe 6: $state has the name that the table gives");
	}
	return;
}

# Two sandboxes stand in for the two spaces: each knows only its own project and
# token.
sub test_spaces
{
	my ($roles, $call, $functions, $both, $tenants, $call_tenant, @rest) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir;
	my %project = (
		acme => 'aaaaaaaa-0000-4000-8000-000000000000',
		globex => 'bbbbbbbb-0000-4000-8000-000000000000');
	my %space = map { $_ => start_sandbox('--project-id', $project{$_}, '--api-token', "PT$_") } sort keys %project;
	my $attempts = sub {
		return join ' ', map { scalar(@{ $_->journal->{requests} }) . '/' . grep { $_->{authorized} } @{ $_->journal->{requests} } }
		  $space{acme}, $space{globex}, $sandbox;
	};
	my $as = sub {
		my ($user, @statements) = @_;
		local $ENV{PGUSER} = $user;
		return run_session($node, @statements);
	};
	my $fresh = sub { $_->reset foreach $sandbox, values %space };

	is(scalar @rest, 0, 'recipe 8 has six blocks');
	run_block($_) foreach $roles, $functions, $tenants;

	# the settings as printed
	foreach my $role (sort keys %project)
	{
		my $session = $as->($role, 'SHOW sw_guest_token.space_name', 'SHOW sw_guest_token.project_id',
			'SHOW sw_guest_token.api_token_file',
			"SELECT 'file ' || setconfig[3] FROM pg_db_role_setting WHERE setrole = '$role'::regrole");
		is($session->{out} . sql_state($session->{err}),
			"$role\n$project{$role}\nfile sw_guest_token.api_token_file=/etc/postgresql/15/main/signalwire_$role\n42501",
			"recipe 8: $role has its settings, and can read the file's name in the catalog");
	}

	# from here on, the spaces are the sandboxes
	query('GRANT SET ON PARAMETER sw_guest_token.base_url TO space_issuer');
	foreach my $role (sort keys %space)
	{
		append_to_file("$directory/$role", "PT$role\n");
		chmod 0600, "$directory/$role";
		query("ALTER $_ SET sw_guest_token.base_url = '$space{$role}{url}';
			ALTER $_ SET sw_guest_token.api_token_file = '$directory/$role'")
		  foreach "ROLE $role", "FUNCTION ${role}_token";
	}

	$fresh->();
	run_block($call, 'acme');
	is($attempts->(), '1/1 0/0 0/0', 'recipe 8: a role gets a token of its space');
	run_block($call, 'globex');
	is($attempts->(), '1/1 1/1 0/0', 'recipe 8: another role one of another');

	query('GRANT globex TO acme');
	my $session = $as->('acme', 'SET ROLE globex', $ONE, 'RESET ROLE',
		"SET sw_guest_token.project_id = '$project{globex}'", 'RESET sw_guest_token.project_id',
		"SET sw_guest_token.api_token_file = '$directory/globex'", "ALTER ROLE acme RESET sw_guest_token.base_url", 'RESET ALL', $ONE);
	is($attempts->(), '3/3 1/1 0/0', 'recipe 8: the settings are those of the role that has logged in');
	is(sql_state($session->{err}), '42501 42501 42501 42501', 'recipe 8: which can neither change nor reset them');
	$session = run_session($node, 'SET SESSION AUTHORIZATION globex', $ONE);
	is($attempts->(), '3/3 1/1 1/1', 'recipe 8: SET SESSION AUTHORIZATION brings no settings');

	# a project with another project's token
	query("ALTER ROLE globex SET sw_guest_token.api_token_file = '$directory/acme'");
	is(sql_state($as->('globex', $ONE)->{err}), '28000', 'recipe 8: a project with another one\'s token is refused');

	# functions
	$fresh->();
	run_block($both);
	is($attempts->(), '1/1 1/1 0/0', 'recipe 8: each function gets a token of its space, in one session');
	my $acme = "SELECT 'acme ' || (token IS NOT NULL) FROM acme_token('{$ADDRESS}')";
	$session = as_role('web', $acme, "SELECT token FROM globex_token('{}')", $acme, $ONE,
		"SET sw_guest_token.project_id = '$project{globex}'");
	is($session->{out} . sql_state($session->{err}), "acme true\nacme true\n22023 42501 42501",
		'recipe 8: whoever calls a function can neither set what it sets nor call the extension');
	run_session($node, "SELECT token FROM globex_token('{}')", $acme, $ONE);
	is($attempts->(), '4/4 1/1 1/1', 'recipe 8: after a function, or its failure, the session has its own settings');
	query('ALTER FUNCTION acme_token SECURITY INVOKER');
	is(sql_state(as_role('web', $acme)->{err}), '42501', 'recipe 8: a function that runs as its caller cannot set them');

	# a role with settings calls a function with other settings
	$fresh->();
	query('GRANT EXECUTE ON FUNCTION globex_token TO acme');
	$as->('acme', $ONE, "SELECT token FROM globex_token('{$ADDRESS}')", $ONE);
	is($attempts->(), '2/2 1/1 0/0', 'recipe 8: a function takes precedence over the role');

	# a table of tenants: where their requests would go if the proxy existed
	query("GRANT SET ON PARAMETER sw_guest_token.proxy TO space_issuer;
		ALTER FUNCTION tenant_token SET sw_guest_token.base_url = '';
		ALTER FUNCTION tenant_token SET sw_guest_token.proxy = 'http://127.0.0.1:1';
		ALTER FUNCTION tenant_token SET sw_guest_token.max_retries = 0;
		UPDATE tenant SET token_file = '$directory/' || space");
	$session = as_role('web', map { "SELECT token FROM tenant_token('$_', '{$ADDRESS}')" } qw(Acme Globex Nobody));
	is(sql_state($session->{err}), '08001 08001 P0002', 'recipe 8: only what is in the table is a tenant');
	is( query("SELECT string_agg(target, ' ' ORDER BY target) FROM sw_guest_token_stat WHERE target LIKE '%signalwire.com'"),
		'https://acme.signalwire.com https://globex.signalwire.com', 'recipe 8: each tenant has its own space');

	# a tenant's project and token are used, too
	$fresh->();
	my $for = sub { "SELECT 'token ' || (token IS NOT NULL) FROM tenant_token('$_[0]', '{$ADDRESS}')" };
	query("ALTER FUNCTION tenant_token RESET sw_guest_token.proxy;
		ALTER FUNCTION tenant_token SET sw_guest_token.base_url = '$space{acme}{url}'");
	run_block($call_tenant);
	is(sql_state(as_role('web', $for->('Globex'))->{err}), '28000', "recipe 8: one tenant's space refuses another");
	query("ALTER FUNCTION tenant_token SET sw_guest_token.base_url = '$space{globex}{url}'");
	is(as_role('web', $for->('Globex'))->{out}, "token true\n", 'recipe 8: and its own space knows it');
	is($attempts->(), '2/1 1/1 0/0', 'recipe 8: each tenant has its own project and token');
	$session = run_session($node, 'BEGIN', $for->('Globex'), $ONE, 'COMMIT',
		"SELECT token FROM tenant_token('Globex', '{}')", $ONE);
	is($attempts->(), '2/1 2/2 2/2', "recipe 8: afterwards the session has its own settings");
	$session = as_role('web', 'SELECT * FROM tenant', "UPDATE tenant SET space = 'mine'");
	is(sql_state($session->{err}), '42501 42501', 'recipe 8: the application can neither read nor write the table');
	return;
}

#
# The document
#

# The sections of a Markdown file in order: {title}, and {blocks}, each with
# {language} and {text}, those of SQL with the {output} that follows them.
sub read_recipes
{
	my ($file) = @_;
	my @found = ({ title => '', blocks => [] });

	foreach (slurp_file($file) =~ /^(##? [^\n]*|```\w+\n.*?^```)$/msg)
	{
		if (/^#+ (.*)/)
		{
			push @found, { title => $1, blocks => [] };
			next;
		}
		my ($language, $text) = /^```(\w+)\n(.*)```/s;
		my ($recipe) = $found[-1]{title} =~ /^(\d+)/;
		my $blocks = $found[-1]{blocks};

		if ($language eq 'text' && @$blocks && $blocks->[-1]{language} eq 'sql')
		{
			$blocks->[-1]{output} = $text;
		}
		else
		{
			push @$blocks,
			  { recipe => $recipe ? "recipe $recipe" : 'roles', language => $language, text => $text };
		}
	}
	return @found;
}

# The blocks of the section whose title begins with this.
sub blocks_of
{
	my ($title, $language) = @_;
	my ($section) = grep { index($_->{title}, $title) == 0 } @sections
	  or die "docs/recipes.md has no section \"$title\"";
	my @blocks = grep { $_->{language} eq $language } @{ $section->{blocks} };

	return $language eq 'sql' ? @blocks : map { $_->{text} } @blocks;
}

# Runs a block through psql as printed, as a superuser unless another role is named.
# Compares what psql prints with what the document shows, and returns it.
sub run_block
{
	my ($block, $role) = @_;
	my ($first) = $block->{text} =~ /^((?!BEGIN|SET).+)/m;
	my $name = "$block->{recipe}: \"$first\"";
	my $shown = $block->{output};
	my $out = '';
	my $ok = IPC::Run::run(
		[ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1',
		  '-d', $node->connstr('postgres') . ($role ? " user=$role" : '') ],
		'<', \$block->{text}, '>&', \$out, IPC::Run::timeout(10 * $PostgreSQL::Test::Utils::timeout_default));

	if (defined $shown && $shown =~ /^ERROR/)
	{
		ok(!$ok, "$name fails as it should");
	}
	else
	{
		ok($ok, "$name runs without an error") or diag($out);
	}
	if (defined $shown)
	{
		my $pattern = join '.*', map { quotemeta } split /…/, tidy($shown), -1;
		like(tidy($out), qr/\A$pattern\z/, "$name prints what the document shows");
	}
	return $out;
}

# psql's tables without widths and row counts.
sub tidy
{
	my ($text) = @_;

	$text =~ s/^\(\d+ rows?\)\n//mg;
	$text =~ s/-+/-/g;
	$text =~ s/ +/ /g;
	$text =~ s/ +$//mg;
	$text =~ s/\s+\z//;
	return $text;
}

#
# The server and the sandbox
#

sub query
{
	return $node->safe_psql('postgres', $_[0]);
}

sub as_role
{
	my ($role, @statements) = @_;

	return run_session($node, "SET SESSION AUTHORIZATION $role", @statements);
}

sub use_script
{
	return "SET sw_guest_token.base_url = '" . $sandbox->script($_[0]) . "'";
}

# Starts a worker of recipe 4 or 5, with a superuser's settings.
sub start_worker
{
	my ($call, @settings) = @_;

	return session($node, @settings, 'SET SESSION AUTHORIZATION token_worker', $call);
}

sub run_worker
{
	is(start_worker('CALL issue_tokens()')->finish->{err}, '', 'recipe 4: a worker comes to its end');
	return;
}

# New customers with a request for one address each.
sub request_tokens
{
	my ($n) = @_;

	query("WITH c AS (INSERT INTO customer (name) SELECT i FROM generate_series(1, $n) i RETURNING id)
		INSERT INTO token_request (customer_id, addresses) SELECT id, ARRAY[gen_random_uuid()] FROM c");
	return;
}

# The addresses that the sandbox was asked for; refreshes have none.
sub requested
{
	return map { @{ JSON::PP::decode_json($_->{body})->{allowed_addresses} // [] } }
	  @{ $sandbox->journal->{requests} };
}

sub is_token
{
	my ($sql, $address, $name) = @_;

	is_deeply($sandbox->decrypt(query($sql))->{claims}{addresses}, [$address], $name);
	return;
}

# The query gives n rows, each with an address and a token for it.
sub are_tokens
{
	my ($sql, $n, $name) = @_;
	my $good = grep {
		my ($address, $token) = split /\|/;
		$token && $sandbox->decrypt($token)->{claims}{addresses}[0] eq $address
	} split /\n/, query($sql);

	is($good, $n, $name);
	return;
}
