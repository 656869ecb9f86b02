"""Servers on many machines, started and supervised by something that does that already.

What runs on a machine is `hotplug serve-devices`; what starts it is a *launcher*: ssh, Dask, Ray.
They carry a command line there and an announcement back. Between clients and devices they carry
nothing.
"""
