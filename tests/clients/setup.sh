#!/usr/bin/env bash
# Installs the real clients of the test suites into .cache/: a Python environment, the JDBC harness with its drivers, and an
# Apache Kafka.
# Does nothing, in a fraction of a second, when nothing has changed. Needs python3, java 17 and mvn.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Driver versions: the newest on Maven Central, and one of the many older installs in BI tools.
jdbc_versions=(18.3.0 17.0.0)
venv=.cache/venv
java=.cache/java
kafka=.cache/kafka

fail() { echo "setup: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || fail "$1 is missing: install it ($2)"; }

# Whether $1 was made from the same inputs as now; the rest of the arguments are the inputs.
is_current() { [ -f "$1/.made-from" ] && [ "$(cat "$1/.made-from")" = "$(cat "${@:2}" | sha256sum)" ]; }
mark_current() { cat "${@:2}" | sha256sum > "$1/.made-from"; }

python_inputs=(tests/clients/requirements.txt)
if ! is_current $venv "${python_inputs[@]}"; then
  need python3 "apt-get install python3 python3-venv"
  echo "setup: Python environment in $venv"
  [ -x $venv/bin/python ] || python3 -m venv $venv || fail "cannot make a Python environment: apt-get install python3-venv"
  $venv/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt \
    || fail "pip could not install tests/clients/requirements.txt: see the message above"
  mark_current $venv "${python_inputs[@]}"
fi

java_inputs=(tests/clients/java/pom.xml tests/clients/java/src/main/java/*.java tests/clients/setup.sh)
if ! is_current $java "${java_inputs[@]}"; then
  need java "apt-get install openjdk-17-jdk-headless"
  need mvn "apt-get install maven"
  echo "setup: JDBC harness and drivers ${jdbc_versions[*]} in $java"
  mkdir -p $java
  mvn -q -B -f tests/clients/java/pom.xml package -DbuildDirectory="$PWD/$java/build" \
    || fail "maven could not build tests/clients/java: see the message above"
  cp $java/build/jdbc-check.jar $java/build/lib/*.jar $java/
  for version in "${jdbc_versions[@]}"; do
    driver=flight-sql-jdbc-driver-$version.jar
    [ -f "$java/$driver" ] || mvn -q -B org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
      -Dartifact="org.apache.arrow:flight-sql-jdbc-driver:$version" -DoutputDirectory="$PWD/$java" \
      || fail "maven could not fetch the JDBC driver $version"
    [ -f "$java/$driver" ] || fail "$driver is missing after it was fetched"
  done
  mark_current $java "${java_inputs[@]}"
fi

kafka_inputs=(tests/clients/kafka/pom.xml tests/clients/setup.sh)
if ! is_current $kafka "${kafka_inputs[@]}"; then
  need java "apt-get install openjdk-17-jdk-headless"
  need mvn "apt-get install maven"
  echo "setup: Apache Kafka in $kafka"
  rm -rf $kafka
  mkdir -p $kafka
  mvn -q -B -f tests/clients/kafka/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$PWD/$kafka" -DincludeScope=runtime \
    || fail "maven could not fetch Apache Kafka: see the message above"
  mark_current $kafka "${kafka_inputs[@]}"
fi
