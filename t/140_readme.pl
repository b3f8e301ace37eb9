# Every SQL block of the README and of the documents does what it says.  (That of
# the recipes has a test of its own.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('readme');
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);
$node->safe_psql('postgres', 'DROP EXTENSION sw_guest_token');

my @blocks = slurp_file("$FindBin::RealBin/../README.md") =~ /^```sql\n(.*?)^```/msg;
cmp_ok(scalar @blocks, '>=', 6, 'the README has SQL');

# the reader creates the extension after having seen the first query
my ($create) = grep { /CREATE EXTENSION/ } @blocks;
foreach my $block ($create, grep { $_ ne $create } @blocks)
{
	my ($first) = $block =~ /^(.*)/;
	my ($rc, $out, $err) = $node->psql('postgres', $block);

	is("$rc $err", '0 ', "without an error: $first");
}
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT token) FROM visitor'),
	'100|100', 'the batch has issued a token for each row');
my ($again) = grep { /^WITH request/m } @blocks;
$again =~ s/.*?^(?=WITH)//ms;
is(($node->psql('postgres', $again))[2], '', 'and can be run again when there is nothing to do');
is($node->safe_psql('postgres', q{SELECT sw_token_header(token)->>'typ' FROM guest}),
	'SAT', 'the trigger has issued one');

# the other documents: each SQL block runs, and gives what the block of text
# behind it shows
foreach my $name (qw(reference operations troubleshooting))
{
	my $document = slurp_file("$FindBin::RealBin/../docs/$name.md");

	$node->safe_psql('postgres', 'DROP EXTENSION IF EXISTS sw_guest_token CASCADE; CREATE EXTENSION sw_guest_token');
	while ($document =~ /^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```)?/msg)
	{
		my ($block, $expected) = ($1, $2);
		my ($first) = $block =~ /^(.*)/;
		my ($out, $err) = ('', '');

		# operations.md moves the extension to this schema
		local $ENV{PGOPTIONS} = '-c search_path=public,signalwire';
		$node->safe_psql('postgres', 'DROP EXTENSION sw_guest_token') if $block =~ /^CREATE EXTENSION/m;
		IPC::Run::run(
			[ $node->installed_command('psql'), '-Xq', '-P', 'footer=off', '-d', $node->connstr('postgres') ],
			'<', \$block, '>', \$out, '2>', \$err);
		# dropping the extension says what else it drops
		is($err =~ s/^NOTICE:.*\n(?:DETAIL:.*\n)?//mgr, '', "$name: without an error: $first");
		is($out =~ s/\n+\z/\n/r, $expected, "$name: as shown: $first") if defined $expected;
	}
}
$node->safe_psql('postgres', 'CREATE EXTENSION IF NOT EXISTS sw_guest_token');

# the wrapper that troubleshooting.md shows for pools: what they take for the loss
# of a database connection gets another code, and the rest stays as it is
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

# the tables of settings and of SQLSTATEs are complete
my $readme = slurp_file("$FindBin::RealBin/../README.md");
foreach my $name (split /\n/,
	$node->safe_psql('postgres', "LOAD 'sw_guest_token'; SELECT name FROM pg_settings WHERE name ~ '^sw_guest_token'"))
{
	like($readme, qr/^\| `\Q$name\E` \|/m, "$name is in the table");
}

done_testing();
