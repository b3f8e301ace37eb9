# docs/clients.md prints what the programs of examples/clients do.  (script/clients,
# which needs the drivers, runs them.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $document = slurp_file("$root/docs/clients.md");
my @programs = glob "$root/examples/clients/*.{py,mjs,java,pl,php,go}";
my $sources = join '', map { slurp_file($_) } @programs;

# each snippet comes from the program that is named above it
my %shown;
while ($document =~ m{\]\(\.\./(examples/clients/[^)]+)\)[^`]*?\n```\w+\n(.*?)^```}msg)
{
	my ($name, $block) = ($1, $2);
	my ($snippet) = slurp_file("$root/$name") =~ /^[^\w\n]*clients\.md\n(.*?)^[^\w\n]*end\n/ms;
	my ($indentation) = ($snippet // '') =~ /^(\s*)\S/;

	$snippet =~ s/^$indentation//mg if $indentation;
	$snippet =~ s/\A\n+|\n+\z//g if defined $snippet;
	is($block, defined $snippet ? "$snippet\n" : undef, "the snippet of $name (else: script/clients --update)");
	$shown{$name} = 1;
}
foreach my $file (@programs)
{
	my ($name) = $file =~ m{(examples/clients/.*)};

	ok($shown{$name}, "$name is in the document") if slurp_file($file) =~ /^[^\w\n]*clients\.md$/m;
}
cmp_ok(scalar keys %shown, '>=', 14, 'the document has a snippet for each driver');

# the document names the versions that script/clients brings
my $packages = decode_json(slurp_file("$root/examples/clients/package.json"))->{dependencies};
foreach my $name (grep { $_ ne 'graphql' } sort keys %$packages)
{
	my ($version) = $packages->{$name} =~ /^(\d+\.\d+)\.\d+$/;

	like($document, qr/ \Q$name $version\E\b/, "the document names the version of $name");
}

# each message is one that a program has seen; split strings are joined first
$sources =~ s/"\n\s*[.+]?\s*f?"//g;
my ($messages) = $document =~ /^## Error messages\n(.*)/ms;
my @messages = map { /`([^`]+)`/g } map { (split /\s\|\s/)[0] } grep { /^\| `/ } split /\n/, $messages;
cmp_ok(scalar @messages, '>=', 25, 'the document has messages');
foreach my $message (@messages)
{
	my @parts = map { s/^"|"$//gr } split /…/, $message;

	is(scalar(grep { index($sources, $_) < 0 } @parts), 0, "a program has seen: $message");
}

# the SQL runs
my $node = start_server('clients');
$node->safe_psql('postgres', 'CREATE ROLE app LOGIN');
while ($document =~ /^```sql\n(.*?)^```/msg)
{
	is(($node->psql('postgres', $1))[2], '', 'the SQL runs');
}
is($node->safe_psql('postgres', 'SHOW sw_guest_token.read_ahead', connstr => $node->connstr('postgres') . ' user=app'),
	'on', 'and has its effect when the role logs in');

done_testing();
