# What the TAP tests share: a server with the extension, and the sandbox that
# stands in for SignalWire's API.

package SwTest;

use strict;
use warnings;

use Exporter 'import';
use File::Temp;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  $ADDRESS $ONE batch_of start_server start_process start_sandbox use_sandbox session
  run_session wait_for_call stop_process count_descriptors listen_dumbly make_certificate
  $PAIR raw_response start_raw sql_state
);

# An address, and the call that asks for a token for it.
our $ADDRESS = '11111111-1111-1111-1111-111111111111';
our $ONE =
  "SELECT 'token ' || (token IS NOT NULL) FROM sw_create_guest_token('{$ADDRESS}')";

# batch_of(N): N such calls as one, to select from.
sub batch_of
{
	return "sw_create_guest_tokens(array_fill(ROW('{$ADDRESS}', NULL, NULL, NULL)::sw_guest_token_request, '{$_[0]}'))";
}

# Nothing in the environment may lead the calls elsewhere; each server has its own
# settings.
delete @ENV{
	qw(PGOPTIONS http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY)
};

my @sandboxes;

# start_server(NAME, [CONFIGURATION], %init): a running server with the
# extension created.  Unless the configuration says otherwise, the library is
# preloaded, and the time limits suit a slow machine.
sub start_server
{
	my ($name, $configuration, %init) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '--locale=C', '--encoding=UTF8' ], %init);
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'sw_guest_token'\n"
		  . "sw_guest_token.connect_timeout = '100s'\nsw_guest_token.timeout = '100s'\n"
		  # on a busy machine the sandbox is slow enough to be taken for silent
		  . "sw_guest_token.breaker = off\n"
		  . ($configuration // ''));
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION sw_guest_token');
	return $node;
}

# start_process(COMMAND, [INPUT]): starts a process, and returns an object that
# collects its output in the texts {out} and {err}.  Without INPUT, its standard
# input stays open until finish().
#
# The process may live as long as it likes; only the wait for its next output is limited.
sub start_process
{
	my ($command, $input) = @_;
	my $self = bless { in => '', out => '', err => '' }, 'SwTest::Process';
	my $timer = IPC::Run::timeout(2 * $PostgreSQL::Test::Utils::timeout_default);
	my ($out, $err) = \@$self{qw(out err)};

	$self->{timer} = $timer;
	$self->{process} = IPC::Run::start($command, '<', $input // \$self->{in},
		'>', sub { $$out .= $_[0]; $timer->start; },
		'2>', sub { $$err .= $_[0]; $timer->start; }, $timer);
	return $self;
}

# start_sandbox(OPTION...): a running sandbox.
sub start_sandbox
{
	my @options = @_;
	my $self = bless start_process([ 'sandbox/signalwire_sandbox.py', '--stop-on-eof', @options ]),
	  'SwTest::Sandbox';

	$self->{http} = HTTP::Tiny->new(timeout => 300, keep_alive => 0);
	($self->{url}) = $self->wait_for(qr{listening on (\S+)\n})
	  or BAIL_OUT("the sandbox did not start: $self->{out}$self->{err}");
	push @sandboxes, $self;
	return $self;
}

# use_sandbox(SERVER, SANDBOX): makes the server call the sandbox.
sub use_sandbox
{
	my ($node, $sandbox) = @_;

	$node->append_conf('postgresql.conf', <<"EOC");
sw_guest_token.base_url = '$sandbox->{url}'
sw_guest_token.project_id = '00000000-0000-4000-8000-000000000000'
sw_guest_token.api_token = 'PTsandbox'
EOC
	$node->reload;

	# a reload takes effect when the postmaster has read it
	$node->poll_query_until('postgres',
		"SELECT current_setting('sw_guest_token.base_url') = '$sandbox->{url}'"
	) or die "the server did not read its configuration";
	return;
}

# session(SERVER, SQL...): starts a session that runs the statements, errors
# or not.  run_session() waits for its end as well; both return an object with
# the texts {out} and {err}.
sub session
{
	my ($node, @statements) = @_;
	my @command = (
		$node->installed_command('psql'), '-XAtq',
		'-v', 'VERBOSITY=verbose',
		'-d', $node->connstr('postgres') . ' application_name=victim');

	return start_process([ @command, map { ('-c', $_) } @statements ], \undef);
}

sub run_session
{
	return session(@_)->finish;
}

# wait_for_call(SERVER): returns when the session waits for the network.
sub wait_for_call
{
	my ($node) = @_;

	$node->poll_query_until('postgres', <<'EOQ')
SELECT count(*) > 0 FROM pg_stat_activity
WHERE application_name = 'victim' AND wait_event_type = 'Extension'
EOQ
	  or die "the session does not wait";
	return;
}

# stop_process(PID, SECONDS): a process gets no processor for that time.
sub stop_process
{
	my ($pid, $seconds) = @_;

	kill 'STOP', $pid;
	select undef, undef, undef, $seconds;
	kill 'CONT', $pid;
	return;
}

# SQL for the number of descriptors that the session's process has open.
sub count_descriptors
{
	return
	  "SELECT 'descriptors ' || count(*) FROM pg_ls_dir('/proc/' || pg_backend_pid() || '/fd')";
}

# A listening socket that nobody reads from.
sub listen_dumbly
{
	my $socket = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1',
		Proto => 'tcp',
		Listen => $_[0] // 100) or die "could not listen: $!";
	return ($socket, $socket->sockport);
}

# make_certificate(DIRECTORY, [NAME, [DAYS]]): a self-signed certificate for the loopback
# address and its key, as the files cert.pem and key.pem, whose paths are returned.
sub make_certificate
{
	my ($directory, $name, $days) = @_;
	my @files = ("$directory/cert.pem", "$directory/key.pem");
	my ($out, $err) = ('', '');

	IPC::Run::run(
		[   'openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
			'-nodes', '-days', $days // 30, '-subj', '/CN=' . ($name // 'localhost'),
			'-addext', 'subjectAltName = IP:127.0.0.1, DNS:two.example, DNS:three.example, DNS:moved.example', '-out', $files[0], '-keyout', $files[1] ],
		'>', \$out, '2>', \$err) or die $err;
	return @files;
}

# The body of a good answer.
our $PAIR = '{"token":"a","refresh_token":"b"}';

# raw_response(STATUS, BODY, [HEADER...]): a response over HTTP/1.1, in hexadecimal.
sub raw_response
{
	my ($status, $body, @headers) = @_;

	return unpack 'H*', join "\r\n", "HTTP/1.1 $status", 'Content-Type: application/json',
	  'Content-Length: ' . length $body, @headers, '', $body;
}

# start_raw(ANSWERS, [CERTIFICATE, KEY]): a running t/raw_server.py, and its {url}.
sub start_raw
{
	my ($answers, @files) = @_;
	my $file = File::Temp->new;
	print $file encode_json($answers);
	$file->flush;
	my $self = start_process([ 't/raw_server.py', "$file", @files ]);

	($self->{port}) = $self->wait_for(qr/^(\d+)\n/)
	  or BAIL_OUT("the raw server did not start: $self->{err}");
	$self->{url} = (@files ? 'https' : 'http') . "://127.0.0.1:$self->{port}";
	return $self;
}

# The SQLSTATEs of psql's verbose errors, in order.
sub sql_state
{
	return join ' ', $_[0] =~ /(?:ERROR|FATAL):  ([0-9A-Z]{5}):/g;
}

END
{
	# the exit status is the test's, not that of a sandbox that is stopped here
	local $?;
	$_->stop foreach @sandboxes;
}

package SwTest::Process;

# wait_for(PATTERN): waits until the process's output matches; returns what the
# pattern captures, or nothing if the process ended without a match.
sub wait_for
{
	my ($self, $pattern) = @_;

	$self->{timer}->start;
	while ($self->{out} !~ $pattern)
	{
		return unless $self->{process}->pumpable;
		$self->{process}->pump;
	}
	return $self->{out} =~ $pattern;
}

sub finish
{
	my ($self) = @_;

	$self->{timer}->start;
	$self->{process}->finish;
	return $self;
}

package SwTest::Sandbox;

our @ISA = ('SwTest::Process');

# The URL of a script of faults, such as '503-then-201'.
sub script
{
	my ($self, $script) = @_;

	return "$self->{url}/script/$script";
}

# The requests that came since the last reset; journal(N) first waits for N.
sub journal
{
	my ($self, $n) = @_;

	return $self->control('GET', 'journal' . ($n ? "?wait=$n" : ''));
}

sub attempts
{
	my ($self) = @_;

	return scalar @{ $self->journal->{requests} };
}

sub reset
{
	my ($self) = @_;

	$self->control('DELETE', 'journal');
	return;
}

# What is in a token.
sub decrypt
{
	my ($self, $token) = @_;

	return $self->control('POST', 'decrypt', { token => $token });
}

sub control
{
	my ($self, $method, $path, $content) = @_;
	my $response = $self->{http}->request(
		$method,
		"$self->{url}/_sandbox/$path",
		$content
		? { content => JSON::PP::encode_json($content),
			headers => { 'Content-Type' => 'application/json' } }
		: {});

	$response->{success}
	  or die "the sandbox says $response->{status}: $response->{content}";
	return JSON::PP::decode_json($response->{content});
}

sub stop
{
	my ($self) = @_;

	return unless $self->{process};
	$self->{process}->signal('TERM');
	$self->finish;
	Test::More::note($self->{err}) if length $self->{err};
	delete $self->{process};
	return;
}

1;
