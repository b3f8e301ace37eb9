# The extension works where nothing can be written: on a hot standby, in a read-only
# transaction, in single-user mode.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $primary = start_server('primary', "sw_guest_token.breaker = on\n", allows_streaming => 1);
my $sandbox = start_sandbox();
use_sandbox($primary, $sandbox);
my $many = 'SELECT count(token) FROM ' . batch_of(20);

my $session = run_session($primary, 'BEGIN READ ONLY', $ONE, $many, 'COMMIT');
is($session->{err} . $session->{out}, "token true\n20\n", 'in a read-only transaction');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$session = run_session($standby, 'SELECT pg_is_in_recovery()', $ONE, $many, $ONE);
is($session->{err} . $session->{out}, "t\ntoken true\n20\ntoken true\n", 'on a hot standby');
# each server keeps what its own sessions have learnt
my $known = 'SELECT sum(issued), max(state) FROM sw_guest_token_stat';
is($primary->safe_psql('postgres', $known) . ' ' . $standby->safe_psql('postgres', $known), '21|closed 22|closed', 'each server counts its own');
$sandbox->reset;
run_session($standby, "SET sw_guest_token.base_url = '" . $sandbox->script('503') . "'", 'SET sw_guest_token.max_retries = 0', ($ONE) x 5);
is($primary->safe_psql('postgres', $known) . ' ' . $standby->safe_psql('postgres', $known), '21|closed 22|open', 'and suspends its own requests');
$standby->stop;

$primary->stop;
my $single = start_process(
	[ $primary->installed_command('postgres'), '--single', '-F', '-D', $primary->data_dir,
	  '-c', 'exit_on_error=off', 'postgres' ],
	\"$ONE\n$many\nSELECT sw_create_guest_token(NULL)\n$ONE\n")->finish;
is(() = $single->{out} =~ /= "token true"/g, 2, 'in single-user mode');
like($single->{out}, qr/count = "20"/, 'a batch as well');
like($single->{err} . $single->{out}, qr/addresses must not be null/, 'and errors end the statement, not the process');

done_testing();
