# The complete programs in docs/getting-started.md run as printed, and print what the
# document shows, while the sandbox is stopped and started again.
#
# A program whose driver is missing is skipped.  script/clients, which brings the
# drivers, names the languages in PROGRAMS ("python node"): exactly these programs
# run, and none is skipped.  NODE_MODULES is where npm has put pg.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $document = slurp_file("$FindBin::RealBin/../docs/getting-started.md");
my ($section) = $document =~ /^## 10\. (.*?)^## /ms;
my ($shown) = $section =~ /^### What they print\n.*?^```text\n(.*?)^```/ms;
my @heading = split /\n/, $shown;
my @steady = splice @heading, 3;
my %required = map { $_ => 1 } split ' ', $ENV{PROGRAMS} // '';

my ($node_modules) = grep { defined && -d "$_/pg" } $ENV{NODE_MODULES}, '/usr/share/nodejs';
my @programs = (
	{ language => 'python', name => 'first.py', command => ['/usr/bin/python3'],
		missing => can_run('/usr/bin/python3', '-c', 'import psycopg') ? '' : 'psycopg 3' },
	{ language => 'node', block => 'js', name => 'first.mjs', command => ['node'],
		missing => !can_run('node', '--version') ? 'Node.js' : $node_modules ? '' : 'the npm package pg' });

# The server is prepared as the document says, and the role has a password: a program
# without it is turned away.
my ($prepare) = $document =~ /^## 3\. .*?^```sql\n(.*?)^```/ms;
my ($read_ahead) = $section =~ /^```sql\n(.*?)^```/ms;
my ($command) = $document =~ m{^sandbox/signalwire_sandbox\.py --port 8080 (.+)}m;
my @options = split / /, $command;
my $node = start_server('programs', "sw_guest_token.breaker = on\nlisten_addresses = '127.0.0.1'\n");
my $sandbox = start_sandbox(@options);
my ($port) = $sandbox->{url} =~ /:(\d+)$/;
use_sandbox($node, $sandbox);
$node->safe_psql('postgres', "DROP EXTENSION sw_guest_token; $prepare; $read_ahead; ALTER ROLE app PASSWORD 'secret'");
my $rules = slurp_file($node->data_dir . '/pg_hba.conf') =~ s/^host\s.*\n//mgr;
unlink $node->data_dir . '/pg_hba.conf';
$node->append_conf('pg_hba.conf', "$rules\nhost all app 127.0.0.1/32 scram-sha-256\n");
$node->restart;
@ENV{qw(PGPORT PGPASSWORD PYTHONUNBUFFERED)} = ($node->port, 'secret', '1');

foreach my $program (grep { !%required || $required{ $_->{language} } } @programs)
{
	my $language = $program->{language};
	my $fence = $program->{block} // $language;

  SKIP:
	{
		skip "$program->{missing} is not installed: the $language program", 1
		  if $program->{missing} && !$required{$language};
		is($program->{missing}, '', "$language has its driver") or next;

		my ($text) = $section =~ /^```$fence\n(.*?)^```/ms;
		my ($name) = $section =~ /^### .*?`(\Q$program->{name}\E)`.*?^```$fence$/ms;
		is($name, $program->{name}, "the document has a name for the $language program");
		run_program($program, $text);
	}
}
done_testing();

sub run_program
{
	my ($program, $text) = @_;
	my $language = $program->{language};
	my $directory = PostgreSQL::Test::Utils::tempdir;
	my $path = "$directory/$program->{name}";

	PostgreSQL::Test::Utils::append_to_file($path, $text);
	symlink $node_modules, "$directory/node_modules" if $language eq 'node';
	$node->safe_psql('postgres', 'SELECT sw_guest_token_stat_reset()');

	my $process = start_process([ @{ $program->{command} }, $path ]);
	my $expect = sub {
		my ($pattern, $name) = @_;

		# a program that prints something else prints it again and again
		$process->wait_for(qr/$pattern|(?:.*\n){300}/);
		like($process->{out}, $pattern, "$language: $name") or diag($process->{err});
		return $process->{out} =~ $pattern;
	};

	# what it prints at first, and then for each call, as often as needed
	my ($token, $failed, $suspended) = @steady[ 0, 2, 4 ];
	my $first = join '', map { quotemeta =~ s/eyJ\w+/eyJ\\w{17}/r . '\n' } @heading;
	my ($works) = ($process->wait_for(qr/\A((?:.*\n){5})/), '');

	like($works, qr/\A$first(?:\Q$token\E\n){2}\z/, "$language: a token, a batch, an error, and tokens while the API works")
	  or diag($process->{err});
	$sandbox->stop;
	$expect->(qr/\Q$failed\E\n(?:.*\n)*\Q$suspended\E\n(?:.*\n)*\Q$failed\E\n/, 'an outage: failures, suspended calls, and probes');
	$sandbox = start_sandbox(@options, '--port', $port);
	$expect->(qr/\Q$suspended\E\n(?:.*\n)*\Q$token\E\n/, 'tokens again when the API is back');
	$process->{process}->signal('TERM');	# the caller of this test may have it ignore SIGINT
	$process->finish;

	# and nothing else
	my %known = map { $_ => 1 } @steady;
	my @lines = split /\n/, $process->{out};
	is(join("\n", grep { !$known{$_} } splice(@lines, 3)), '', "$language: and no line that the document does not show");
	return;
}

sub can_run
{
	my ($out, $err);

	return eval { IPC::Run::run([@_], '<', \undef, '>', \$out, '2>', \$err) };
}
