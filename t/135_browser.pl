# The SQL of docs/browser-and-refresh.md does what it says, with the roles and the
# table of docs/recipes.md on which it builds.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('browser');
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

my $docs = "$FindBin::RealBin/../docs";
my $recipes = slurp_file("$docs/recipes.md");
foreach my $section ($recipes =~ /\A(.*?)^## /ms, $recipes =~ /^## 5\.(.*?)^## /ms)
{
	my ($block) = $section =~ /^```sql\n(.*?)^```/ms;

	$node->safe_psql('postgres', $block);
}

my $document = slurp_file("$docs/browser-and-refresh.md");
my $blocks = 0;
while ($document =~ /^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```)?/msg)
{
	my ($block, $expected) = ($1, $2);
	my ($first) = $block =~ /^(.*)/;
	my ($out, $err) = ('', '');

	$blocks++;
	IPC::Run::run(
		[ $node->installed_command('psql'), '-Xq', '-P', 'footer=off', '-d', $node->connstr('postgres') ],
		'<', \$block, '>', \$out, '2>', \$err);
	is($err, '', "without an error: $first");
	# psql pads columns, and writes an empty row as a line of spaces
	s/ +$//mg, s/\n+\z/\n/ foreach grep { defined } $out, $expected;
	is($out, $expected, "as shown: $first") if defined $expected;
}
is($blocks, 4, 'the document has four blocks of SQL');

my $hash = q{sha256(convert_to('secret', 'UTF8'))};
$node->safe_psql('postgres', "SELECT start_session(); UPDATE call_session SET secret_hash = $hash WHERE secret_hash IS NOT NULL");
is($node->safe_psql('postgres', q{SELECT count(*) FROM current_token('secret')}), '1', 'a secret finds its session');
is($node->safe_psql('postgres', q{SELECT count(*) FROM current_token('Secret')}), '0', 'another one finds none');
$node->safe_psql('postgres', q{UPDATE call_session SET next_try = now() - interval '1 second' WHERE secret_hash IS NOT NULL});
my $before = $node->safe_psql('postgres', q{SELECT token FROM current_token('secret')});
$node->safe_psql('postgres', 'CALL refresh_tokens()');
isnt($node->safe_psql('postgres', q{SELECT token FROM current_token('secret')}), $before, 'and the token that the worker has refreshed');
$node->safe_psql('postgres', q{UPDATE call_session SET expires_at = now() WHERE secret_hash IS NOT NULL});
is($node->safe_psql('postgres', q{SELECT count(*) FROM current_token('secret')}), '0', 'a token that has expired is not handed out');
$node->safe_psql('postgres', q{SELECT end_session('secret')});
is($node->safe_psql('postgres', 'SELECT count(*) FROM call_session'), '0', 'a session that has ended is gone');
foreach my $sql ('SELECT refresh_token FROM call_session', 'SELECT secret_hash FROM call_session',
	'UPDATE call_session SET secret_hash = NULL')
{
	my $session = run_session($node, 'SET SESSION AUTHORIZATION web', $sql);

	is(sql_state($session->{err}), '42501', "the application cannot: $sql");
}
done_testing();
