# The SQL tests call only their sandbox, even on a server that is configured for an
# API with real credentials.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my ($out, $err) = ('', '');
plan skip_all => 'make is missing'
  unless eval { IPC::Run::run([ 'make', '--version' ], '>', \$out, '2>', \$err) };

my $node = start_server('configured');
my $api = start_sandbox();
my $directory = PostgreSQL::Test::Utils::tempdir;
my ($certificate) = make_certificate($directory);
append_to_file("$directory/token", "PTsandbox\n");
chmod 0600, "$directory/token";

# every setting differs from its default, and every call reaches the API, if only as
# a proxy
my %texts = (
	space_name => 'example',
	project_id => '00000000-0000-4000-8000-000000000000',
	api_token => 'PTsandbox',
	api_token_file => "$directory/token",
	base_url => $api->{url},
	ca_file => $certificate,
	proxy => $api->{url});
my (@settings, @public);
foreach (split /\n/, $node->safe_psql('postgres', <<'EOQ'))
SELECT name, vartype, boot_val, context FROM pg_settings WHERE name LIKE 'sw\_guest\_token.%'
EOQ
{
	my ($name, $type, $default, $context) = split /\|/;
	my $value = $type eq 'string' ? $texts{ $name =~ s/.*\.//r }
	  : $type eq 'bool' ? ($default eq 'on' ? 'off' : 'on')
	  : $default + ($name =~ /tokens/ ? 1000 : 1);

	defined $value or die "give $name a value here";
	push @settings, "$name = '$value'";

	# only the file may hold the token itself, and settings of the whole server
	push @public, $settings[-1] unless $name eq 'sw_guest_token.api_token' || $context eq 'sighup';
}

# The database that pg_regress uses.
sub create_database
{
	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS contrib_regression');
	$node->safe_psql('postgres', 'CREATE DATABASE contrib_regression');
	$node->safe_psql('contrib_regression', 'CREATE EXTENSION sw_guest_token');
	return;
}

# installcheck(WAY, TESTS, OPTION...): runs these SQL tests, or all, with options
# for pg_regress, on the server, which is configured this way.
sub installcheck
{
	my ($way, $tests, @options) = @_;
	my $results = PostgreSQL::Test::Utils::tempdir;
	my $user = $node->safe_psql('postgres', 'SELECT current_user');

	# it is not part of the make that may have started this test
	local @ENV{qw(PGHOST PGPORT PGUSER)} = ($node->host, $node->port, $user);
	delete local @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES REGRESS EXTRA_REGRESS_OPTS)};

	# without the tests' own settings, a call reaches the API
	$node->psql('contrib_regression', $ONE);
	is($api->attempts, 1, "$way: the server is configured");
	$api->reset;

	my $make = start_process([ 'make', 'installcheck', 'TAP_TESTS=', 'PG_CONFIG=pg_config',
			$tests ? "REGRESS=$tests" : (), "EXTRA_REGRESS_OPTS=--outputdir=$results @options" ])->finish;
	is($make->{process}->result(0), 0, "$way: the SQL tests pass")
	  or diag($make->{out}, $make->{err}, -s "$results/regression.diffs" ? slurp_file("$results/regression.diffs") : '');
	is($api->attempts, 0, "$way: and call nothing else than their sandbox");
	$api->reset;
	return;
}

$node->append_conf('postgresql.conf', join "\n", @settings);
$node->restart;
create_database();
installcheck('the configuration file', '') for 1 .. 2;

# a budget needs the library to be preloaded
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''\nsw_guest_token.tokens_per_minute = 0");
$node->restart;
installcheck('the configuration file, and the library is not preloaded', 'arguments settings tokens');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'sw_guest_token'");
$node->append_conf('postgresql.conf', "sw_guest_token.$_ = ''") foreach keys %texts;
$node->restart;

# pg_regress drops the database, and its settings with it, unless told not to
create_database();
foreach my $way ('DATABASE contrib_regression', 'ROLE CURRENT_USER', 'ROLE CURRENT_USER IN DATABASE contrib_regression')
{
	my $set = join ';', map { "ALTER $way SET $_" } @public;

	$node->safe_psql('postgres', $set);
	installcheck("ALTER $way", 'arguments settings tokens', '--use-existing');
	$node->safe_psql('postgres', "ALTER $way RESET ALL");
}

# the options of a service would take precedence over the tests' settings
{
	local $ENV{PGSERVICE} = 'any';
	my ($out, $err) = ('', '');

	ok(!IPC::Run::run([ 'make', 'installcheck', 'TAP_TESTS=', 'PG_CONFIG=pg_config' ], '>', \$out, '2>', \$err), 'not with PGSERVICE');
	like($err, qr/unset PGSERVICE/, 'which says what to do');
}

done_testing();
