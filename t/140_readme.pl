# Every SQL block of the README and of these documents does what it says, and prints
# what the text block after it shows.  Other documents have tests of their own.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = "$FindBin::RealBin/..";
my @documents = qw(
  docs/reference.md docs/operations.md docs/outages.md docs/troubleshooting.md docs/how-it-works.md
  docs/comparison.md docs/faq.md docs/performance.md docs/README.md
);

my $node = start_server('readme', "sw_guest_token.breaker = on\n");
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# pgsql-http is optional: without it, the SQL that uses it is not run
my $has_http = $node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'http'");

test_readme();
test_document($_) foreach grep { -e "$directory/$_" } @documents;
test_getting_started();
test_pool_wrapper();
test_arguments();
test_tables();
test_documents();
done_testing();

#
# The documents
#

sub test_readme
{
	my @blocks = blocks_of('README.md', 'sql');

	cmp_ok(scalar @blocks, '>=', 6, 'the README has SQL');
	cmp_ok(scalar(() = slurp_file("$directory/README.md") =~ /\n/g), '<', 200, 'and is short');
	$node->safe_psql('postgres', 'DROP EXTENSION sw_guest_token');

	# the reader creates the extension after having seen the first query
	my ($create) = grep { $_->{text} =~ /CREATE EXTENSION/ } @blocks;
	my $session = one_session($node);
	run_block($node, $_, $session) foreach $create, grep { $_ != $create } @blocks;
	$session->finish;
	is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT token) FILTER (WHERE token > '') FROM visitor}),
		'100|100', 'the statement has issued a token for each row');
	my ($update) = map { $_->{text} =~ /^(UPDATE visitor .*)$/m } @blocks;
	like($node->safe_psql('postgres', "SET sw_guest_token.read_ahead = on; EXPLAIN $update"),
		qr/Custom Scan \(Guest Tokens\)/, 'and has read ahead');
	is($node->safe_psql('postgres', q{SELECT sw_token_header(token)->>'typ', sw_token_header(refresh_token)->>'typ' FROM guest}),
		'SAT|Refresh', 'the trigger has issued one, which was refreshed');
	is(scalar grep({ $_->{path} eq '/api/fabric/subscribers/tokens/refresh' } @{ $sandbox->journal->{requests} }),
		1, 'once');
	$node->safe_psql('postgres', 'DROP TABLE visitor, guest');
	return;
}

sub test_document
{
	my ($document) = @_;

	$node->safe_psql('postgres', 'DROP EXTENSION IF EXISTS sw_guest_token CASCADE; CREATE EXTENSION sw_guest_token');
	foreach my $block (blocks_of($document, 'sql'))
	{
	  SKIP:
		{
			if ($block->{text} =~ /\bhttp_response\b/)
			{
				skip "pgsql-http is not installed", 1 unless $has_http;
				$node->safe_psql('postgres', 'CREATE EXTENSION http');
			}

			# operations.md moves the extension to this schema
			local $ENV{PGOPTIONS} = '-c search_path=public,signalwire';
			$node->safe_psql('postgres', 'DROP EXTENSION sw_guest_token') if $block->{text} =~ /^CREATE EXTENSION/m;
			run_block($node, $block);
		}
	}

	# what a reader may run again does no harm
	if (my ($again) = grep { $_->{text} =~ /^WITH request/m } blocks_of($document, 'sql'))
	{
		my ($with) = $again->{text} =~ /^(WITH.*)/ms;
		my $before = $sandbox->attempts;

		is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT token) FROM member'),
			'100|100', 'the batch has issued a token for each row');
		is(($node->psql('postgres', $with))[2], '', 'and can be run again when there is nothing to do');
		is($sandbox->attempts, $before, 'which asks for nothing');

		# one row when the planner looked, and many by now
		$node->safe_psql('postgres', 'DELETE FROM member WHERE id > 1; VACUUM (ANALYZE) member');
		$node->safe_psql('postgres', 'INSERT INTO member SELECT i, gen_random_uuid() FROM generate_series(2, 20) i');
		$node->safe_psql('postgres', $with);
		is($sandbox->attempts, $before + 19, 'however wrong the statistics are, it asks once for each row');
	}
	$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS sw_guest_token');
	return;
}

# As a newcomer does it: on a server that preloads the library, with the sandbox
# started as the document says, and in one session.
sub test_getting_started
{
	my $document = 'docs/getting-started.md';
	my $newcomer = start_server('newcomer', "sw_guest_token.breaker = on\n");
	my ($command) = map { $_->{text} =~ m{^sandbox/signalwire_sandbox\.py (.+)}m } blocks_of($document, 'sh');
	my ($port, @options) = (8080, grep { length } split /--port 8080| /, $command);
	my $own = start_sandbox(@options);
	my ($free) = $own->{url} =~ /:(\d+)$/;
	my @blocks = blocks_of($document, 'sql');
	my $session;

	like(slurp_file("$directory/$document"), qr{http://127\.0\.0\.1:$port`}, 'it says where the sandbox listens');
	$newcomer->safe_psql('postgres', 'DROP EXTENSION sw_guest_token');
	foreach my $block (@blocks)
	{
		s/127\.0\.0\.1:$port/127.0.0.1:$free/g foreach grep { defined } @$block{qw(text output)};
		if ($block->{text} =~ /generate_series\(1, 4\)/)
		{
			# A reader takes more than a second to get here.  Newer versions of libcurl check
			# only once a second whether kept-alive connections still exist, so a new session,
			# which has none, stands in for that time.
			$own->stop;
			$session->finish;
			undef $session;
		}
		$own = start_sandbox(@options, '--port', $free) if $block->{text} =~ /FROM sw_guest_token_stat/;
		$session //= one_session($newcomer);
		run_block($newcomer, $block, $session);
		$newcomer->poll_query_until('postgres',
			"SELECT current_setting('sw_guest_token.base_url') LIKE '%:$free'")
		  if $block->{text} =~ /ALTER SYSTEM SET/;
	}
	$session->finish;
	$newcomer->stop;
	return;
}

# The wrapper that troubleshooting.md shows for pools: errors that they take for the
# loss of a database connection get another code, and the rest stays as it is.
sub test_pool_wrapper
{
	my ($wrapper) = grep { $_->{text} =~ /FUNCTION create_guest_token/ } blocks_of('docs/troubleshooting.md', 'sql');

	$node->safe_psql('postgres', "DROP FUNCTION IF EXISTS create_guest_token; $wrapper->{text}");
	foreach my $case (
		[ '201', '', "t\n" ], [ '429', 'SW001' ], [ '500', 'SW001' ], [ 'reset', 'SW001' ], [ '302', 'SW001' ], [ '422', '22023' ])
	{
		my ($script, $code, $out) = @$case;
		my $session = run_session($node, "SET sw_guest_token.base_url = '$sandbox->{url}/script/$script'",
			'SET sw_guest_token.max_retries = 0',
			"SELECT token > '' AND refresh_token > '' FROM create_guest_token('{$ADDRESS}')");

		is(sql_state($session->{err}) . $session->{out}, $code . ($out // ''), "a pool sees of $script: '$code'");
		like($session->{err}, qr/SignalWire.*\nDETAIL:  ./, 'and the message and its detail are the same') if $code;
	}
	return;
}

# What troubleshooting.md says about wrong arguments: they give the messages shown.
sub test_arguments
{
	my ($section) = slurp_file("$directory/docs/troubleshooting.md") =~ /^## Arguments\n(.*?)^## /ms;
	my $n = 0;

	while ($section =~ /^\| `(.*?)` \| `(.*?)` \| /mg)
	{
		my ($arguments, $message) = ($1, $2);
		my ($rc, $out, $err) = $node->psql('postgres', "SELECT sw_create_guest_token($arguments)");

		like($err, qr/ERROR:  @{[pattern($message)]}(?:\n|\z)/, "as shown: $arguments");
		$n++;
	}
	cmp_ok($n, '>=', 10, 'wrong arguments are shown');
	like(($node->psql('postgres', "SELECT * FROM sw_create_guest_tokens('{$ADDRESS}')"))[2],
		qr/malformed record literal: "$ADDRESS"/, 'an array of addresses is not one of requests');
	like(($node->psql('postgres', "SELECT * FROM sw_create_guest_tokens(ARRAY[ROW('{$ADDRESS}'::uuid[], 1, '', '')])"))[2],
		qr/function sw_create_guest_tokens\(record\[\]\) does not exist/, 'nor is an array of rows');
	return;
}

# The tables of the reference are complete.
sub test_tables
{
	my $reference = slurp_file("$directory/docs/reference.md");

	foreach my $name (names("LOAD 'sw_guest_token'; SELECT name FROM pg_settings WHERE name ~ '^sw_guest_token'"))
	{
		like($reference, qr/^\| `\Q$name\E` \|/m, "$name is in the table");
	}
	foreach my $name (names(<<'EOQ'))
SELECT DISTINCT proname FROM pg_proc, pg_depend
WHERE objid = pg_proc.oid AND classid = 'pg_proc'::regclass AND deptype = 'e'
AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sw_guest_token')
EOQ
	{
		like($reference, qr/^\| \[`$name`\]\(#$name\) \||`$name\(/m, "$name() is in the reference");
	}
	foreach my $name (names(<<'EOQ'))
SELECT attname FROM pg_attribute
WHERE attrelid IN ('sw_guest_token_stat'::regclass, 'sw_guest_token_latency'::regclass) AND attnum > 0
EOQ
	{
		like($reference, qr/^\| `$name`(?: \\\*)? \|/m, "column $name is in the reference");
	}

	my ($codes) = $reference =~ /^## SQLSTATEs\n(.*?)^## /ms;
	my $sources = join '', map { slurp_file($_) } glob "$directory/src/*.c";
	my %conditions = (
		ERRCODE_NULL_VALUE_NOT_ALLOWED => '22004', ERRCODE_INVALID_PARAMETER_VALUE => '22023',
		ERRCODE_CHARACTER_NOT_IN_REPERTOIRE => '22021', ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION => '28000',
		ERRCODE_INSUFFICIENT_PRIVILEGE => '42501', ERRCODE_UNDEFINED_OBJECT => '42704',
		ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE => '55000', ERRCODE_CONNECTION_FAILURE => '08006',
		ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION => '08001', ERRCODE_SYSTEM_ERROR => '58000',
		ERRCODE_CONFIGURATION_LIMIT_EXCEEDED => '53400', ERRCODE_PROTOCOL_VIOLATION => '08P01');
	foreach my $name (sort keys %conditions)
	{
		like($sources, qr/\b$name\b/, "$name is raised");
		like($codes, qr/^\|[^|]*`$conditions{$name}`[^|]*\| `[a-z_]+`/m, "$conditions{$name} is in the table");
	}
	return;
}

# Each document with SQL is run by this test or another.
sub test_documents
{
	my $tests = join '', map { slurp_file($_) } glob "$directory/t/*.pl";

	foreach my $file (glob "$directory/docs/*.md")
	{
		my ($name) = $file =~ m{/docs/([\w-]+)\.md$};

		next unless blocks_of("docs/$name.md", 'sql');
		like($tests, qr{docs/$name\.md}, "a test runs the SQL of $name.md");
	}
	return;
}

#
# Helpers
#

# The blocks of a document in a language; a text block that follows one is its
# {output}.
sub blocks_of
{
	my ($document, $language) = @_;
	my $text = slurp_file("$directory/$document");
	my @blocks;

	while ($text =~ /^```$language\n(.*?)^```\n(?:\n```text\n(.*?)^```)?/msg)
	{
		push @blocks, { document => $document, text => $1, output => $2 };
	}
	return @blocks;
}

# Starts psql for run_block().
sub one_session
{
	my ($server) = @_;

	return start_process([ $server->installed_command('psql'), '-Xq', '-P', 'footer=off', '-d', $server->connstr('postgres') ]);
}

# Runs a block as it is printed, in a session of its own or in the one that is given,
# where it finds what the blocks before it have left behind.
sub run_block
{
	my ($server, $block, $session) = @_;
	my ($first) = $block->{text} =~ /^((?!SET ROLE|BEGIN).+)/m;
	my $shown = $block->{output} // '';
	my $own = $session ? undef : one_session($server);
	my $psql = $session // $own;

	@$psql{qw(out err)} = ('', '');
	$psql->{timer}->start(10 * $PostgreSQL::Test::Utils::timeout_default);
	$psql->{in} .= "$block->{text}\n\\echo end of block\n\\warn end of block\n";
	foreach my $stream (qw(out err))
	{
		$psql->{process}->pump while $psql->{$stream} !~ /^end of block\n/m && $psql->{process}->pumpable;
	}
	$own->finish if $own;
	my ($out, $err) = map { s/^end of block\n//mr } @$psql{qw(out err)};

	# dropping the extension says what else it drops
	$err =~ s/^NOTICE:.*\n(?:DETAIL:.*\n)?//mg;
	is($err, '', "$block->{document}: without an error: $first") unless $shown =~ /^ERROR/;
	like(tidy($out . $err), qr/\A@{[pattern(tidy($shown))]}\z/, "$block->{document}: as shown: $first") if $shown;
	return;
}

# psql's tables without widths.
sub tidy
{
	my ($text) = @_;

	$text =~ s/-+/-/g;
	$text =~ s/ +/ /g;
	$text =~ s/ +$//mg;
	$text =~ s/\n\n+/\n/g;
	$text =~ s/\s+\z//;
	return $text;
}

# … stands for anything that differs.
sub pattern
{
	return join '.*', map { quotemeta } split /…/, $_[0], -1;
}

sub names
{
	return split /\n/, $node->safe_psql('postgres', $_[0]);
}
