# The example for Prometheus: its queries run as a role that may only read statistics,
# each column has a use, and the alerts name what is measured.

use strict;
use warnings;

use CPAN::Meta::YAML;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = "$FindBin::RealBin/../examples/prometheus";
my $sandbox = start_sandbox();
my $node = start_server('prometheus', "sw_guest_token.breaker = on\nsw_guest_token.max_retries = 0\n");
use_sandbox($node, $sandbox);
$node->safe_psql('postgres', 'CREATE ROLE prometheus; GRANT pg_monitor TO prometheus');

# two projects at one URL are one target to Prometheus
run_session($node, $ONE, "SET sw_guest_token.project_id = 'another'", $ONE, "SELECT * FROM sw_create_guest_token('{}')");
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT target) FROM sw_guest_token_stat'),
	'2|1', 'there are two rows for one URL');

my $queries = CPAN::Meta::YAML->read_string(slurp_file("$directory/queries.yaml"))->[0];
my %measured;
foreach my $name (sort keys %$queries)
{
	my $query = $queries->{$name}{query} =~ s/\s+\z//r;
	my %usage = map { %$_ } @{ $queries->{$name}{metrics} };
	my (@columns, @labels);

	foreach my $column (sort keys %usage)
	{
		my $is_histogram = $usage{$column}{usage} eq 'HISTOGRAM';
		my @parts = $is_histogram ? map { "$column$_" } '', qw(_bucket _sum _count) : ($column);

		push @columns, @parts;
		push @labels, $column if $usage{$column}{usage} eq 'LABEL';
		$measured{"${name}_$_"} = 1 foreach @parts;
	}
	my $session = run_session($node, 'SET ROLE prometheus', "CREATE TEMP VIEW q AS $query",
		"SELECT string_agg(column_name, ' ' ORDER BY column_name COLLATE \"C\") FROM information_schema.columns WHERE table_name = 'q'",
		'SELECT count(*) > 0 FROM q',
		'SELECT count(*) = count(DISTINCT (' . join(', ', @labels) . ')) FROM q');
	is($session->{err} . $session->{out}, join(' ', sort @columns) . "\nt\nt\n",
		"$name: a row for each label, whose columns are those that are described");
}

my %calls = map { split /\|/ } split /\n/,
  run_session($node, "SELECT outcome, total FROM ($queries->{sw_guest_token_calls}{query}) AS q")->{out};
is("$calls{issued} $calls{rejected}", '1 1', 'calls of both projects are there');
is(scalar keys %calls, 9, 'there are nine outcomes');
is( run_session($node, "SELECT sum(calls) FROM sw_guest_token_stat")->{out},
	run_session($node, "SELECT sum(total) FROM ($queries->{sw_guest_token_calls}{query}) AS q")->{out},
	'which are all calls');
is( run_session($node, "SELECT seconds_count, seconds[1], seconds[17], array_length(seconds_bucket, 1) FROM ($queries->{sw_guest_token_call}{query}) AS q")->{out},
	"2|0.001|65.536|17\n", 'the histogram has all calls, and its bounds are in seconds');

my @alerts = slurp_file("$directory/alerts.yaml") =~ /expr: \|\n((?: {10}.*\n)+)/g;
cmp_ok(scalar @alerts, '>=', 4, 'there are alerts');
my @unknown = grep { !$measured{$_} } map { /\b(sw_guest_token_\w+)/g } @alerts;
is("@unknown", '', 'alerts name what is measured');
my @outcomes = map { split /\|/ } map { /outcome=~?"([^"]+)"/g } @alerts;
is(join(' ', grep { !exists $calls{$_} } @outcomes), '', 'and outcomes that there are');

done_testing();
