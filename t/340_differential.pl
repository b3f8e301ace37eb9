# Queries give the same rows, with the same number of requests, whether they read
# ahead or not: some that once did not, and random ones, of which script/differential
# runs more.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use SwTest;
use Test::More;

my $node = start_server('differential', <<'EOC');
autovacuum = off
EOC
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# requests(QUERY, READ_AHEAD): how many it makes.
sub requests
{
	my ($query, $read_ahead) = @_;

	$sandbox->reset;
	$node->safe_psql('postgres', "SET sw_guest_token.read_ahead = $read_ahead; $query");
	return $sandbox->attempts;
}

# the second part of UNION ALL is not asked for rows that the first part yields
my $part = "SELECT (sw_create_guest_token('{$ADDRESS}', expire_at => 2100000000 + i)).token FROM generate_series(1, %d) i";
my $union = sprintf "$part UNION ALL $part", 3, 20;
my $loop = <<"EOC";
CREATE FUNCTION pg_temp.f() RETURNS void LANGUAGE plpgsql AS
	\$\$DECLARE r record; BEGIN FOR r IN $union LOOP EXIT; END LOOP; END\$\$;
SELECT pg_temp.f();
EOC
foreach (
	[ 'LIMIT', "$union LIMIT 5", 5 ],
	[ 'a loop that ends', $loop, 10 ],
	[ 'all', $union, 23 ])
{
	my ($name, $query, $n) = @$_;

	is(requests($query, 'off'), $n, "UNION ALL, $name: requests, one by one");
	is(requests($query, 'on'), $n, "UNION ALL, $name: as many, read ahead");
}

local @ENV{qw(PGHOST PGPORT)} = ($node->host, $node->port);
my $run = start_process([ 't/differential.py', '--seed', 1, 300 ], \undef)->finish;
note($run->{out});
like($run->{out} . $run->{err}, qr/^0 differences\n\z/m, 'random queries: no difference');
like($run->{out}, qr/^all +300 +\d+ +0 +[1-9]\d+ /m, 'none is refused, and many read ahead');

done_testing();
